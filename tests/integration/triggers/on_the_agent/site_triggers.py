"""Triggers as a site would write them, for the tests."""

import asyncio
import os
import time
from pathlib import Path

from airflow.sdk import Connection, Variable
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TaskSuccessEvent, TriggerEvent


class FileTrigger(BaseTrigger):
    """Fires with the text of a file once it exists; writes down what happens to itself."""

    def __init__(self, path, notes=None):
        super().__init__()
        self.path, self.notes = path, notes

    def serialize(self):
        return "site_triggers.FileTrigger", {"path": self.path, "notes": self.notes}

    def note(self, what):
        if self.notes:
            with Path(self.notes).open("a") as notes:
                notes.write(f"{what} {os.getpid()}\n")

    async def run(self):
        self.note("run")
        while not Path(self.path).exists():  # noqa: ASYNC240 - polls on purpose
            await asyncio.sleep(0.02)
        yield TriggerEvent(Path(self.path).read_text())  # noqa: ASYNC240

    async def cleanup(self):
        self.note("cleanup")

    async def on_kill(self):
        await asyncio.sleep(1.5)  # longer than Airflow waits before it cancels a second time
        self.note("on_kill")


class FailingTrigger(BaseTrigger):
    def __init__(self, message):
        super().__init__()
        self.message = message

    def serialize(self):
        return "site_triggers.FailingTrigger", {"message": self.message}

    async def run(self):
        raise ValueError(self.message)
        yield


class NeverMadeTrigger(BaseTrigger):
    """Cannot be made: stock Airflow's runner ends with it."""

    def __init__(self, **refused):
        super().__init__()
        if refused:
            raise RuntimeError("no such thing")

    def serialize(self):
        return "site_triggers.NeverMadeTrigger", {"refuse": True}

    async def run(self):
        yield TriggerEvent(None)


class DeadlyTrigger(BaseTrigger):
    """Ends its process, the first time it runs."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def serialize(self):
        return "site_triggers.DeadlyTrigger", {"marker": self.marker}

    async def run(self):
        if not Path(self.marker).exists():  # noqa: ASYNC240
            Path(self.marker).touch()  # noqa: ASYNC240
            os._exit(3)
        yield TriggerEvent("alive")


class AskingTrigger(BaseTrigger):
    """Reads an XCom, a variable in three ways, and a connection."""

    def __init__(self, dag_id, run_id, task_id):
        super().__init__()
        self.dag_id, self.run_id, self.source = dag_id, run_id, task_id

    def serialize(self):
        return "site_triggers.AskingTrigger", {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.source,
        }

    async def run(self):
        loop = asyncio.get_running_loop()
        xcom = await XCom.aget_one(key="k", dag_id=self.dag_id, run_id=self.run_id, task_id=self.source)
        in_thread = await asyncio.to_thread(Variable.get, "shared")
        in_executor = await loop.run_in_executor(None, Variable.get, "shared")
        in_the_loop = Variable.get("shared")
        connection = await asyncio.to_thread(Connection.get, "site")
        yield TriggerEvent(
            {
                "xcom": xcom,
                "variables": [in_thread, in_executor, in_the_loop],
                "connection": connection.host,
            }
        )


class EndingTrigger(BaseTrigger):
    """Ends its task with XCom values."""

    def serialize(self):
        return "site_triggers.EndingTrigger", {}

    async def run(self):
        yield TaskSuccessEvent(xcoms={"return_value": {"planted": "MARKER-xcom"}})


class HugeTrigger(BaseTrigger):
    def serialize(self):
        return "site_triggers.HugeTrigger", {}

    async def run(self):
        yield TriggerEvent("x" * (1 << 20))


class FolderWatcher(BaseEventTrigger):
    """Fires for each new file in a folder, as an asset watcher."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def serialize(self):
        return "site_triggers.FolderWatcher", {"folder": self.folder}

    async def run(self):
        seen = set()
        while True:
            for path in sorted(Path(self.folder).iterdir()):  # noqa: ASYNC240
                if path.name not in seen:
                    seen.add(path.name)
                    yield TriggerEvent(path.name)
            await asyncio.sleep(0.05)


class StateWatcher(BaseEventTrigger):
    """Counts in the asset's state store, then fires."""

    def serialize(self):
        return "site_triggers.StateWatcher", {}

    async def run(self):
        store = self.asset_state_store
        count = await asyncio.to_thread(self._count, store)
        yield TriggerEvent(count)
        await asyncio.Event().wait()

    def _count(self, store):
        from airflow.sdk import Asset

        state = store[Asset(name="counted", uri="test://counted")]
        count = (state.get("count") or 0) + 1
        state.set("count", count)
        return count


async def call_back(**kwargs):
    """What a deadline calls."""
    return f"called with {sorted(kwargs)}"


class TimedTrigger(BaseTrigger):
    """Fires at a moment with the time it saw, for measurements."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def serialize(self):
        return "site_triggers.TimedTrigger", {"at": self.at}

    async def run(self):
        await asyncio.sleep(max(0.0, self.at - time.time()))
        yield TriggerEvent(time.time())


class BlockingTrigger(BaseTrigger):
    """Blocks the whole loop, the first time it runs, as a badly written trigger does."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def serialize(self):
        return "site_triggers.BlockingTrigger", {"marker": self.marker}

    async def run(self):
        if not Path(self.marker).exists():  # noqa: ASYNC240
            Path(self.marker).touch()  # noqa: ASYNC240
            time.sleep(600)  # noqa: ASYNC251
        yield TriggerEvent("unblocked")


async def long_call_back(path, notes):
    """A callback that is still running when others look for work."""
    with Path(notes).open("a") as written:  # noqa: ASYNC230
        written.write(f"{os.getpid()}\n")
    while not Path(path).exists():  # noqa: ASYNC240
        await asyncio.sleep(0.05)

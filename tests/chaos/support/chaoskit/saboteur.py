"""Repeats messages on the bus, late and in another order, as a bad network and a nervous operator would."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.settings import BusSettings

SUBJECTS = ("work.>", "event.workload.>", "rpc.workloads.>")
COPIES = 3
LATEST_SECONDS = 3.0


class Saboteur:
    """Publishes everything it hears ``COPIES`` more times, each after a random while and under a new id."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._own: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.repeated = 0

    async def run(self, url: str, begun: threading.Event, ended: threading.Event) -> None:
        async with open_bus(BusSettings(url=url), "jetbridge-saboteur") as bus:

            async def hear(message: Msg) -> None:
                if (message.headers or {}).get("Sabotage") != "yes":
                    for _ in range(COPIES):
                        task = asyncio.create_task(self._repeat(bus, message))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)

            for subject in SUBJECTS:
                await bus.client.subscribe(subject, cb=hear)
            await bus.client.flush()
            begun.set()
            await asyncio.to_thread(ended.wait)
            await asyncio.gather(*self._tasks)

    async def _repeat(self, bus: Bus, message: Msg) -> None:
        await asyncio.sleep(self._chance.uniform(0, LATEST_SECONDS))
        # A new id, or JetStream would recognise the copy; and no reply, for nobody waits for its answer.
        headers = {**(message.headers or {}), "Sabotage": "yes", "Nats-Msg-Id": uuid.uuid4().hex}
        await bus.client.publish(message.subject, message.data, headers=headers)
        self.repeated += 1


@contextmanager
def sabotage(url: str, chance: random.Random) -> Iterator[Saboteur]:
    """Repeat messages, from a thread, until left."""
    saboteur, begun, ended = Saboteur(chance), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(saboteur.run(url, begun, ended)), name="saboteur")
    thread.start()
    try:
        assert begun.wait(30), "the saboteur did not get to the bus"
        yield saboteur
    finally:
        ended.set()
        thread.join(30)

"""What gateways ask the bridge about assets: ``rpc.assets.*``."""

from __future__ import annotations

from typing import ClassVar

from jetbridge.contracts.envelope import Body
from jetbridge.contracts.rpc import rpc_subject
from jetbridge.contracts.triggering import TriggerId

AREA = "assets"
FIND_OWN = rpc_subject(AREA, "find-own")


class FindOwnAssets(Body, frozen=True, kw_only=True):
    """``rpc.assets.find-own``: asks for the assets of a task instance or, where none waits, of a trigger."""

    TYPE: ClassVar[str] = "assets.find-own"

    task_instance: str | None = None
    trigger_id: TriggerId | None = None


class OwnAssets(Body, frozen=True, kw_only=True):
    """
    Answer to :class:`FindOwnAssets`: inlets and outlets of the task, or what the trigger watches.

    An asset is in ``names`` and in ``uris``, a reference by one of them in that one; an alias is in
    ``aliases``, and what an alias among the inlets stands for now is in ``names`` and ``uris`` as well.
    """

    TYPE: ClassVar[str] = "assets.own"

    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


ALL_BODIES: tuple[type[Body], ...] = (FindOwnAssets, OwnAssets)

"""
Airflow's Dag file processor manager without a parsing loop.

An agent overrides the manager's hooks (AIP-92) and sends what they were given; here the same hooks run as
Airflow wrote them, with what was sent. Nothing else of the manager is ever called.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
from airflow.dag_processing.manager import DagFileInfo, DagFileProcessorManager

from jetbridge.scheduler.bridge.dag_processing.bundles import RemoteDagBundle


@attrs.define(kw_only=True)
class PlaneManager(DagFileProcessorManager):
    """The manager's hooks, for some bundles. Cheap to make; one for each request."""

    max_runs: int = 1
    present_paths: Collection[str] = ()
    _api_server: Any = attrs.field(init=False, default=None)
    """Airflow's default is a whole API server, for the parser processes that there are none of here."""

    @classmethod
    def of(cls, *bundles: str, present_paths: Collection[str] = ()) -> PlaneManager:
        """Return a manager of these bundles; ``present_paths`` are the files that one of them has now."""
        manager = cls(present_paths=present_paths)
        manager._dag_bundles = [RemoteDagBundle(name=name) for name in bundles]
        return manager

    def _get_observed_filelocs(self, present: set[DagFileInfo]) -> set[str]:  # noqa: ARG002 - see below
        # Airflow looks into archives for this, which only the agent can; it sends what it found.
        return set(self.present_paths)


def file_info(bundle: str, path: str) -> DagFileInfo:
    """Return how Airflow names a file of a bundle."""
    return DagFileInfo(rel_path=Path(path), bundle_name=bundle)

"""
Airflow's bundle manager on a machine that has no bundle.

Airflow configures bundles in ``[dag_processor] dag_bundle_config_list``. The plane has none to configure:
each is declared by the agent that works on it, and Airflow's own manager writes it to the database.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.dag_processing.bundles.manager import DagBundlesManager, _InternalBundleConfig
from airflow.models.dagbundle import DagBundleModel
from sqlalchemy.orm import Session

from jetbridge.contracts.dag_processing import DeclareBundle

_CONFIG_VARIABLE = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
_CLASSPATH = f"{__name__}.RemoteDagBundle"
_lock = threading.Lock()


class RemoteDagBundle(BaseDagBundle):
    """A bundle whose files are in an execution plane. Nothing can be read from it here."""

    def __init__(self, *, template_params: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Airflow reads the values for a template's placeholders off the bundle's attributes.
        for name, value in (template_params or {}).items():
            if not hasattr(self, name):
                setattr(self, name, value)

    @property
    def path(self) -> Path:
        """Return a path that says where the files are not."""
        return Path(f"/remote-bundle/{self.name}")

    def get_current_version(self) -> None:
        """Return nothing: only the agent that has the files knows."""
        return

    def refresh(self) -> None:
        """Do nothing, as there is nothing to refresh."""


class _DeclaredBundles(DagBundlesManager):
    """Airflow's manager with one bundle for its whole configuration."""

    def __init__(self, name: str, kwargs: dict[str, Any], team: str | None) -> None:
        self._declared = (name, kwargs, team)
        super().__init__()  # type: ignore[no-untyped-call]

    def parse_config(self) -> None:
        """Take the declaration in place of the configuration."""
        name, kwargs, team = self._declared
        self._bundle_config = {
            name: _InternalBundleConfig(bundle_class=RemoteDagBundle, kwargs=kwargs, team_name=team)
        }


def declare(session: Session, request: DeclareBundle) -> None:
    """Write the bundle to the database, as Airflow's Dag processor does for its own at its start."""
    kwargs = {
        "view_url_template": request.view_url_template,
        "template_params": request.template_params,
    }
    # Which team a bundle belongs to is decided on the plane, never by whoever has its files.
    team = DagBundleModel.get_team_name(request.bundle, session=session)
    # Other agents have other bundles, so this one's absence from a declaration says nothing.
    _DeclaredBundles(request.bundle, kwargs, team).sync_bundles_to_db(
        deactivate_missing=False, session=session
    )


def configure(bundle: str) -> None:
    """
    Name the bundle in this process' own Airflow configuration.

    Airflow looks up the bundle of an import error there when it tells listeners (plugins) of it, and logs a
    traceback each time it finds none.
    """
    with _lock:
        known = json.loads(os.environ.get(_CONFIG_VARIABLE) or "[]")
        if any(one["name"] == bundle for one in known):
            return
        known.append({"name": bundle, "classpath": _CLASSPATH, "kwargs": {}})
        os.environ[_CONFIG_VARIABLE] = json.dumps(known)

"""
What the plane adds to Airflow's api-server: ``/jetbridge``, behind Airflow's own login.

Every process of Airflow loads plugins, also the scheduler, so this imports next to nothing: the application
is made by the first request. ``tokens_app`` has the operations.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

URL_PREFIX = "/jetbridge"


class _MadeOnFirstUse:
    """An ASGI application that is imported when somebody asks for something."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from jetbridge.scheduler.plugin.tokens_app import make_app  # noqa: PLC0415 - see above

            self._app = make_app()
        await self._app(scope, receive, send)


class JetbridgePlugin(AirflowPlugin):
    """Registered as an entry point of ``airflow.plugins``."""

    name = "jetbridge"
    fastapi_apps = [{"app": _MadeOnFirstUse(), "url_prefix": URL_PREFIX, "name": "Jetbridge"}]  # noqa: RUF012 - Airflow's attribute

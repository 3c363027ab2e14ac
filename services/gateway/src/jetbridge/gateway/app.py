"""The ASGI application of a gateway."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from jetbridge.gateway.dag_processor_routes import dag_processor_routes
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.guard import Guard, answer_problems
from jetbridge.gateway.openapi_document import document_of
from jetbridge.gateway.routes import agent_routes, execution_routes, lease_routes, plane_routes
from jetbridge.gateway.scaling_routes import scaling_routes
from jetbridge.gateway.sentinel_routes import sentinel_routes
from jetbridge.gateway.triggerer_routes import triggerer_routes


def build_app(gateway: Gateway) -> ASGIApp:
    """Return the application: routes inside, ids, errors and metrics around them."""
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    for routes in (
        agent_routes,
        dag_processor_routes,
        triggerer_routes,
        sentinel_routes,
        lease_routes,
        execution_routes,
        scaling_routes,
        plane_routes,
    ):
        app.include_router(routes(gateway))
    app.openapi = document_of(app)  # type: ignore[method-assign]  # as FastAPI's manual says
    settings = gateway.settings
    answer_problems(app, gateway.metrics, gateway.limits, settings.failed_logins_per_minute)
    return Guard(app, gateway.metrics, gateway.boundary, settings.trusted_proxies)

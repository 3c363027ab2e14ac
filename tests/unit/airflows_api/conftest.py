"""Airflow's own Execution API: built once, for it takes ten seconds, and only by the process that asks."""

import asyncio
import warnings
from dataclasses import dataclass

import httpx
import pytest


@dataclass(frozen=True)
class AirflowsApi:
    """Its router, as this release has it, and the OpenAPI document of every version that it serves."""

    routes: list
    versions: list[str]
    documents: list[dict]

    def operations(self):
        """Return the method and path of every route, in Airflow's order."""
        return [(method, route.path) for route in self.routes for method in route.methods]


@pytest.fixture(scope="session")
def airflows_api():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's app imports Starlette's test client
        from airflow.api_fastapi.execution_api.app import create_task_execution_api_app
        from airflow.api_fastapi.execution_api.routes import execution_api_router
        from airflow.api_fastapi.execution_api.versions import bundle

    versions = [version.value for version in bundle.versions]

    async def documents():
        transport = httpx.ASGITransport(create_task_execution_api_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            answers = [await client.get("/openapi.json", params={"version": one}) for one in versions]
        return [answer.json() for answer in answers]

    return AirflowsApi(execution_api_router.routes, versions, asyncio.run(documents()))

"""``jetbridge gateway``: serve agents over HTTPS and bridge them to the bus."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import uvloop
from pydantic import ValidationError

from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.gateway.airflow_tokens import SigningKeyError
from jetbridge.gateway.server import ListenError, serve
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.tracing import TracingConfigurationError, traced

_FLAGS = ("host", "port", "tls_cert_file", "tls_key_file", "airflow_url", "airflow_jwt_secret_file")
USAGE_ERROR = 2


def main(argv: list[str]) -> int:
    """Run a gateway until it is told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    try:
        settings, bus_settings = GatewaySettings(**given), BusSettings()
    except ValidationError as exc:
        return _fail(_sentences(exc), USAGE_ERROR)
    configure_logging("gateway")
    try:
        with traced("gateway"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(settings, bus_settings))
    except (BusError, SigningKeyError, ListenError, TracingConfigurationError) as exc:
        return _fail(str(exc), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetbridge gateway",
        description="Serve agents over HTTPS and bridge them to the bus.",
        epilog=_environment(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in _FLAGS:
        description = GatewaySettings.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=description)
    for name in ("allow_plaintext", "reuse_port"):
        description = GatewaySettings.model_fields[name].description
        parser.add_argument(
            f"--{name.replace('_', '-')}", action="store_true", default=None, help=description
        )
    return parser


def _environment() -> str:
    lines = ["environment (an argument wins over it):", "  JETBRIDGE_NATS_URL  address of NATS"]
    prefix = GatewaySettings.model_config["env_prefix"]
    for name, field in GatewaySettings.model_fields.items():
        variable = "JETBRIDGE_REDIS_URL" if name == "redis_url" else f"{prefix}{name.upper()}"
        lines.append(f"  {variable}  {field.description}")
    return "\n".join(lines)


def _sentences(error: ValidationError) -> str:
    """Return what is wrong with the settings, without the values: one may be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_input=False, include_url=False)
    )


def _fail(reason: str, code: int) -> int:
    print(f"jetbridge gateway: {reason}", file=sys.stderr)  # noqa: T201 - a command's answer
    return code

"""
A relay between agents and gateway that holds the TLS keys and writes down what agents send, in the clear.

``python -m jetbridge.devstack.recorder``: one file for each connection, written before it is passed on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import ssl
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 1 << 16


def main() -> None:
    """Relay until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--host", "--to-host"):
        parser.add_argument(name, required=True)
    for name in ("--port", "--to-port"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--certificate", "--key", "--ca", "--directory"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(_relay(arguments))


async def _relay(arguments: argparse.Namespace) -> None:
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inside.load_cert_chain(arguments.certificate, arguments.key)
    outside = ssl.create_default_context(cafile=arguments.ca)
    numbers = itertools.count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(
                arguments.to_host, arguments.to_port, ssl=outside, server_hostname=arguments.to_host
            )
        except OSError:
            writer.close()
            return
        with (arguments.directory / f"{next(numbers):06}.sent").open("wb", buffering=0) as record:
            await asyncio.gather(
                _pass_on(reader, to_writer, record.write), _pass_on(to_reader, writer, lambda _data: None)
            )

    server = await asyncio.start_server(serve, arguments.host, arguments.port, ssl=inside)
    async with server:
        await server.serve_forever()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], object]
) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            note(data)
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass  # either side is gone; the other one is told by closing
    finally:
        writer.close()


if __name__ == "__main__":
    main()

"""
Requests to one server, the gateway, and their answers as bytes.

aiohttp, which takes a fifth of httpx' time for a request: of a short task that was a tenth of all that its
worker does, see docs/adr/0138.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from jetbridge.agent.connections import IDLE_CONNECTION_SECONDS


class NoAnswerError(Exception):
    """Nothing, or not all, came back. What was asked for may have happened all the same."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait: for a connection with its TLS, and then for each piece of the answer."""

    connect_seconds: float
    answer_seconds: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, read whole; ``content_type`` is "" when it was not said."""

    status: int
    body: bytes
    content_type: str = ""


class Http(Protocol):
    """What a ``GatewayClient`` needs."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, within: Limits
    ) -> Answer:
        """Make one request as it is, redirects not followed; raises :class:`NoAnswerError`."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpClient:
    """
    The network. HTTP/1.1 with keep-alive: each long poll has its own connection anyway.

    :param server: address of the server, for which proxies are taken from the environment as everywhere
    :param tls: what is trusted; None for what the system trusts
    """

    def __init__(self, server: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls if tls is not None else True
        self._proxy = _proxy_for(server)
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, within: Limits
    ) -> Answer:
        """Make one request as it is, redirects not followed; raises :class:`NoAnswerError`."""
        timeout = aiohttp.ClientTimeout(sock_connect=within.connect_seconds, sock_read=within.answer_seconds)
        request = self._opened().request(
            method,
            URL(url, encoded=True),  # else what is percent-encoded in it would be decoded where it can be
            headers=headers,
            data=body or None,
            timeout=timeout,
            allow_redirects=False,
        )
        try:
            async with request as response:
                content_type = response.headers.get("content-type", "")
                return Answer(status=response.status, body=await response.read(), content_type=content_type)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswerError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._proxy and not self._proxy.startswith(("http://", "https://")):
            kind = self._proxy.partition(":")[0]  # and not the rest, which may hold a password
            raise NoAnswerError(f"the environment names a proxy of the kind {kind}; use one that speaks HTTP")
        if self._session is None:  # it belongs to the loop that runs
            # No limit: each connection is one poll, heartbeat, accept or report, and slots bound those.
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=0, keepalive_timeout=IDLE_CONNECTION_SECONDS
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy
            )
        return self._session


def _proxy_for(server: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY has for a server not named by NO_PROXY."""
    parts = urlsplit(server)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy

"""
Every error the Remote Execution API answers with, in one table.

The agent decides by ``type``, never by the text: each class says whether asking again can help.
"""

from __future__ import annotations

from enum import Enum

TYPE_PREFIX = "urn:jetbridge:problem:"


class ProblemType(Enum):
    """``(slug, status, title)`` of each problem. The slug is part of the contract."""

    MALFORMED = ("malformed", 400, "The request is not what this operation takes")
    UNAUTHENTICATED = ("unauthenticated", 401, "A valid token is needed")
    FORBIDDEN = ("forbidden", 403, "This credential may not do that")
    NOT_FOUND = ("not-found", 404, "There is nothing at this address")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This address does not take that method")
    AGENT_REPLACED = ("agent-replaced", 409, "Another process registered under this agent's name")
    AGENT_ENDED = ("agent-ended", 409, "This agent's process is known to have ended")
    ALREADY_KNOWN = ("already-known", 409, "The plane knows this already")
    OUTDATED = ("outdated", 409, "This is about another process than the agent's current one")
    NOT_HELD = ("not-held", 409, "This triggerer does not hold these triggers")
    LEASE_LOST = ("lease-lost", 410, "The lease is not held by this agent any more")
    TOO_LARGE = ("too-large", 413, "The request is larger than this operation allows")
    UNSUPPORTED_MEDIA = ("unsupported-media-type", 415, "The body must be application/json")
    UNKNOWN_CONTRACT = ("unknown-contract", 422, "The agent speaks a newer contract than this gateway")
    BOUNDARY = ("boundary", 422, "This data does not cross the boundary")
    UNUSABLE = ("unusable", 422, "The plane cannot use what was sent")
    TOO_MANY = ("too-many-requests", 429, "Too many requests in a short time")
    INTERNAL = ("internal", 500, "The gateway failed")
    UPSTREAM = ("upstream", 502, "Airflow's API server did not answer")
    UNAVAILABLE = ("unavailable", 503, "The plane cannot do this right now")

    @property
    def slug(self) -> str:
        """Return the last part of the type's URN."""
        return self.value[0]

    @property
    def uri(self) -> str:
        """Return the value of ``Problem.type``."""
        return TYPE_PREFIX + self.value[0]

    @property
    def status(self) -> int:
        """Return the HTTP status code."""
        return self.value[1]

    @property
    def title(self) -> str:
        """Return the value of ``Problem.title``."""
        return self.value[2]

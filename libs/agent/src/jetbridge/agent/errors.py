"""
What can go wrong between an agent and the gateway, and whether asking again may help.

Every text is a sentence for the operator: what happened, to what, and what to do. None holds a secret.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How an agent's process ends. A service manager should not restart after USAGE and REFUSED."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3


class AgentError(Exception):
    """Base of everything this package raises. ``exit_code`` applies when it ends the agent."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class GatewayError(AgentError):
    """A call to the gateway had no good answer; ``may_retry``: the same call may succeed later."""

    may_retry: ClassVar[bool] = False


class GatewayUnreachableError(GatewayError):
    """No answer: connection refused or lost, time-out, TLS failure. The call may have taken effect."""

    may_retry = True


class GatewayUnavailableError(GatewayError):
    """The gateway answered that it cannot do this now (5xx, 408, 429)."""

    may_retry = True


class NotAGatewayError(GatewayError):
    """Somebody else answered: a proxy's page, another server. Proxies do this while a gateway restarts."""

    may_retry = True


class CredentialRefusedError(GatewayError):
    """The credential of this session is not valid any more (401); registering again gives a new one."""

    may_retry = True


class TokenFileError(GatewayError):
    """The token file cannot be read or holds no token. It may be in the middle of a rotation."""

    may_retry = True
    exit_code = ExitCode.USAGE


class RequestRefusedError(GatewayError):
    """The gateway will not do this, now or later: malformed, forbidden, no such thing (other 4xx)."""

    exit_code = ExitCode.REFUSED


class LeaseLostError(RequestRefusedError):
    """The lease is not held by this agent (410)."""


class AgentRefusedError(GatewayError):
    """The gateway will not have this agent, whatever it asks: it has to stop."""

    exit_code = ExitCode.REFUSED


class TokenRefusedError(AgentRefusedError):
    """The agent token is wrong, expired or revoked (401 at registration)."""


class AgentReplacedError(AgentRefusedError):
    """Another process registered under this agent's name (409)."""


class AgentEndedError(AgentRefusedError):
    """The plane knows that this process ended, and may have given its work to others (409)."""


class UnknownContractError(AgentRefusedError):
    """The gateway is older than this agent and does not speak its contract (422)."""

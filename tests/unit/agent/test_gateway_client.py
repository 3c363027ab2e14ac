from __future__ import annotations

import ssl

import msgspec
import pytest

from jetbridge.agent import errors
from jetbridge.agent.gateway_client import POLL_MARGIN_SECONDS, GatewayClient, tls_context
from jetbridge.agent.http import Answer, NoAnswerError
from jetbridge.contracts.api import HeartbeatRequest, PollRequest, Problem, RegisterRequest, ReportRequest
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.problems import ProblemType

LEASE = "0190c3f4-0000-7000-8000-000000000001.7"


class Scripted:
    """Gives one answer to everything, and remembers what was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    async def send(self, *request):
        self.seen.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self):
        pass


def answering(answer):
    return GatewayClient("https://gw.test/base/", http=Scripted(answer))


def answer(status, body, content_type="application/json"):
    return Answer(status=status, body=body, content_type=content_type)


def problem(kind, detail="do this"):
    document = Problem(type=kind.uri, title=kind.title, status=kind.status, detail=detail)
    return answer(kind.status, msgspec.json.encode(document), "application/problem+json")


EXPECTED = {
    ProblemType.MALFORMED: errors.RequestRefusedError,
    ProblemType.UNAUTHENTICATED: errors.CredentialRefusedError,
    ProblemType.FORBIDDEN: errors.RequestRefusedError,
    ProblemType.NOT_FOUND: errors.RequestRefusedError,
    ProblemType.METHOD_NOT_ALLOWED: errors.RequestRefusedError,
    ProblemType.AGENT_REPLACED: errors.AgentReplacedError,
    ProblemType.AGENT_ENDED: errors.AgentEndedError,
    ProblemType.LEASE_LOST: errors.LeaseLostError,
    ProblemType.TOO_LARGE: errors.RequestRefusedError,
    ProblemType.UNSUPPORTED_MEDIA: errors.RequestRefusedError,
    ProblemType.UNKNOWN_CONTRACT: errors.UnknownContractError,
    ProblemType.INTERNAL: errors.GatewayUnavailableError,
    ProblemType.UPSTREAM: errors.GatewayUnavailableError,
    ProblemType.UNAVAILABLE: errors.GatewayUnavailableError,
}


@pytest.mark.parametrize("kind", ProblemType)
async def test_every_problem_becomes_its_error(kind):
    async with answering(problem(kind)) as client:
        with pytest.raises(errors.GatewayError) as raised:
            await client.accept(LEASE, "credential")
    expected = EXPECTED.get(kind, errors.GatewayUnavailableError if kind.status in (408, 429) else None)
    assert type(raised.value) is (expected or errors.RequestRefusedError)
    assert "do this" in str(raised.value)
    assert "credential" not in str(raised.value).removeprefix(kind.title)


async def test_a_refused_token_says_what_to_do_and_not_the_secret():
    token = AgentToken.generate()
    body = RegisterRequest(name="a1", instance="0" * 32, role="worker")
    async with answering(problem(ProblemType.UNAUTHENTICATED)) as client:
        with pytest.raises(errors.TokenRefusedError) as raised:
            await client.register(token, body)
    assert token.id in str(raised.value)
    assert token.secret not in str(raised.value)
    assert "jetbridge token create" in str(raised.value)
    assert not raised.value.may_retry


@pytest.mark.parametrize(
    "response",
    [
        answer(404, b"default backend - 404", "text/plain"),
        answer(502, b"<html>Bad Gateway</html>", "text/html"),
        answer(302, b""),
        answer(401, b'{"detail": "not ours"}'),
        answer(400, b'{"type": "about:blank", "title": "x", "status": 400}'),
        answer(200, b"<html>captive portal</html>", "text/html"),
        answer(200, b'{"lease": 7}'),
    ],
)
async def test_an_answer_of_somebody_else_may_be_asked_for_again(response):
    async with answering(response) as client:
        with pytest.raises(errors.NotAGatewayError) as raised:
            await client.accept(LEASE, "credential")
    assert raised.value.may_retry


async def test_no_answer_may_be_asked_for_again():
    async with answering(NoAnswerError("connection refused")) as client:
        with pytest.raises(errors.GatewayUnreachableError, match=r"gw\.test did not answer: connection ref"):
            await client.heartbeat("a1", "credential", HeartbeatRequest(free_slots=1), 1.0)


async def test_an_unknown_ca_says_which_flag_helps():
    error = NoAnswerError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    async with answering(error) as client:
        with pytest.raises(errors.GatewayUnreachableError, match="--ca-file"):
            await client.accept(LEASE, "credential")


async def test_requests_as_they_go_out():
    http = Scripted(answer(200, msgspec.json.encode({"lease": LEASE, "from_the_future": 1})))
    async with GatewayClient("https://gw.test/base/", http=http) as client:
        await client.poll("a1", "credential", PollRequest(free_slots=2, wait_seconds=5))
        await client.report(LEASE, "credential", ReportRequest(outcome=Outcome.SUCCEEDED, exit_code=0))
    (method, url, headers, body, within), (_, reported_to, _, report, _) = http.seen
    assert (method, url) == ("POST", "https://gw.test/base/v1/agents/a1/poll")
    assert headers["authorization"] == "Bearer credential"
    assert headers["content-type"] == "application/json"
    assert within.answer_seconds == 5 + POLL_MARGIN_SECONDS
    assert msgspec.json.decode(body) == {"free_slots": 2, "wait_seconds": 5}
    assert reported_to.endswith(f"/v1/leases/{LEASE}/report")
    assert msgspec.json.decode(report) == {"outcome": "succeeded", "exit_code": 0}


def test_a_ca_file_is_trusted_alone(tmp_path):
    context = tls_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    empty = tmp_path / "ca.pem"
    empty.write_text("")
    with pytest.raises(ssl.SSLError):
        tls_context(empty)

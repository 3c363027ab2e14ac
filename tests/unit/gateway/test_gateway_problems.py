"""Problem documents: complete, bounded, and never more than they should say."""

import json

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.problems import (
    MEDIA_TYPE,
    ProblemError,
    problem_response,
    unauthenticated,
    unavailable,
)


def test_every_type_becomes_a_document():
    for kind in ProblemType:
        response = problem_response(ProblemError(kind, "Do this."), "urn:uuid:1")
        assert response.status_code == kind.status
        assert response.headers["content-type"] == MEDIA_TYPE
        assert json.loads(response.body) == {
            "type": kind.uri,
            "title": kind.title,
            "status": kind.status,
            "detail": "Do this.",
            "instance": "urn:uuid:1",
        }


def test_a_detail_that_quotes_the_request_is_bounded():
    response = problem_response(ProblemError(ProblemType.MALFORMED, "x" * 100_000))
    assert len(response.body) < 1000


def test_401_names_the_scheme_and_503_when_to_come_back():
    assert problem_response(unauthenticated()).headers["www-authenticate"].startswith("Bearer")
    assert problem_response(unavailable("Later.")).headers["retry-after"] == "1"


def test_nobody_caches_a_problem():
    assert problem_response(unauthenticated()).headers["cache-control"] == "no-store"

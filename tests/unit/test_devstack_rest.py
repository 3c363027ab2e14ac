"""Waiting for something that Airflow's API says: bounded, and patient with an API server that is busy."""

import httpx
import pytest

from jetbridge.devstack.rest import AirflowClient, WaitError


@pytest.fixture
def client():
    with AirflowClient("http://airflow.invalid") as client:
        yield client


def test_a_question_without_an_answer_in_time_is_asked_again(client):
    answers = iter([httpx.ReadTimeout("busy"), None, httpx.ConnectTimeout("busy"), "success"])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert client.wait(ask, "the end", timeout_seconds=60) == "success"


def test_a_server_that_never_answers_ends_the_wait_and_is_named(client):
    def ask():
        raise httpx.ReadTimeout("busy")

    with pytest.raises(WaitError, match="waited 0 s for the end; 1 questions got no answer in time"):
        client.wait(ask, "the end", timeout_seconds=0)


def test_a_server_that_refuses_is_no_busy_one(client):
    def ask():
        raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        client.wait(ask, "the end", timeout_seconds=60)


def test_what_the_check_finds_ends_the_wait_before_the_next_question(client):
    def check():
        raise WaitError("a process has ended")

    with pytest.raises(WaitError, match="a process has ended"):
        client.wait(lambda: pytest.fail("asked all the same"), "the end", timeout_seconds=60, check=check)

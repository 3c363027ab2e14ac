"""The manager's questions over a real pair of sockets."""

import socket
import threading

import pytest

from jetbridge.dag_processor import wire
from jetbridge.dag_processor.plane import AgentGoneError, Plane, PlaneUnavailableError
from jetbridge.dag_processor.wire import Answer, Held


@pytest.fixture
def answering():
    """A plane whose agent answers each question with what ``answers(question)`` returns."""
    ours, theirs = socket.socketpair()
    threads = []

    def begin(answers):
        def serve():
            while header := theirs.recv(wire.LENGTH.size, socket.MSG_WAITALL):
                question = wire.question(theirs.recv(wire.LENGTH.unpack(header)[0], socket.MSG_WAITALL))
                for answer in answers(question):
                    theirs.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[0].start()
        return Plane(ours)

    yield begin
    ours.close()
    for thread in threads:  # it reads from theirs until it has seen the end of ours
        thread.join()
    theirs.close()


def held(question, **epochs):
    body = b'{"epochs":%s}' % str(epochs).replace("'", '"').encode()
    return wire.frame(Answer(number=question.number, body=body))


def test_the_answer_to_the_question_is_returned(answering):
    assert answering(lambda question: [held(question, a=1)]).held().epochs == {"a": 1}


def test_a_late_answer_to_an_earlier_question_is_passed_over(answering):
    plane = answering(lambda question: [wire.frame(Answer(number=0, body=b"late")), held(question, a=2)])
    assert plane.held().epochs == {"a": 2}


def test_an_answer_in_small_pieces_is_put_together(answering):
    def slowly(question):
        data = held(question, a=3)
        return [data[at : at + 1] for at in range(len(data))]

    assert answering(slowly).held().epochs == {"a": 3}


def test_an_answer_nobody_can_read_is_no_answer(answering):
    plane = answering(lambda question: [wire.frame(Answer(number=question.number, body=b"[]"))])
    with pytest.raises(PlaneUnavailableError):
        plane.ask("state", Held(epochs={}), Held)


def test_an_agent_that_is_gone_is_noticed():
    ours, theirs = socket.socketpair()
    theirs.close()
    plane = Plane(ours)
    with pytest.raises(AgentGoneError):
        plane.held()
    plane.close()

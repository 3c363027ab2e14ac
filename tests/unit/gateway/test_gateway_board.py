"""Which agent gets the next workload: most free slots first, equals in turn, never more than asked for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.bus.topology import OFFER_SECONDS
from jetbridge.contracts.ids import LeaseKey
from jetbridge.gateway.board import Board, Waiter
from jetbridge.gateway.credentials import AgentClaims
from jetbridge.gateway.outstanding import Outstanding


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return Board(Outstanding(clock))


def waiter(agent: str, free: int = 1, lanes=("default",), leases=()) -> Waiter:
    claims = AgentClaims(agent, "i", "t", 0.0)
    return Waiter(claims=claims, lanes=tuple(lanes), free_slots=free, leases=frozenset(leases))


def take(board: Board, lane: str = "default") -> str | None:
    """Choose and make the offer, as the matchmaker does; returns the agent."""
    chosen = board.choose(lane)
    if chosen is None:
        return None
    board.outstanding.add(chosen.agent, LeaseKey(f"w{next(take.numbers)}", 1))
    board.settle(chosen)
    return chosen.agent


take.numbers = iter(range(10**9))


def test_nobody_waits(board):
    assert board.choose("default") is None
    assert board.capacity("default", 10) == 0


def test_most_free_slots_first(board):
    for agent, free in (("a", 1), ("b", 3), ("c", 2)):
        board.add(waiter(agent, free))
    assert board.capacity("default", 100) == 6
    assert [take(board) for _ in range(7)] == ["b", "c", "b", "a", "c", "b", None]


def test_equals_are_served_in_turn_also_over_polls(board):
    order = []
    for _ in range(3):
        for agent in ("a", "b"):
            if board.of(agent) is None:
                board.add(waiter(agent))
        order.append(take(board))
        board.remove(board.of(order[-1]))
        board.outstanding.expire()
        for number in range(100):
            board.outstanding.remove(f"w{number}")
    assert order == ["a", "b", "a"]


def test_an_open_offer_keeps_its_slot_until_it_is_accepted(board):
    board.add(waiter("a", 1))
    lease = LeaseKey("w", 7)
    board.outstanding.add("a", lease)  # another gateway made it, by the mirror
    board.refresh("a")
    assert board.choose("default") is None
    assert board.outstanding.remove("w") == "a"
    board.refresh("a")
    assert board.choose("default").agent == "a"


def test_an_offer_the_agent_counts_itself_is_not_counted_twice(board):
    board.outstanding.add("a", LeaseKey("w", 7))
    board.add(waiter("a", 1, leases=["w.7"]))
    assert board.capacity("default", 10) == 1


def test_an_unanswered_offer_gives_its_slot_back_in_time(board, clock):
    board.add(waiter("a", 1))
    assert take(board) == "a"
    assert take(board) is None
    clock.now += OFFER_SECONDS + 1
    assert board.outstanding.expire() == {"a"}
    board.refresh("a")
    assert take(board) == "a"


def test_a_newer_offer_of_a_workload_replaces_the_older(board):
    board.outstanding.add("a", LeaseKey("w", 1))
    board.outstanding.add("b", LeaseKey("w", 2))
    assert board.outstanding.count("a", frozenset()) == 0
    assert board.outstanding.count("b", frozenset()) == 1


def test_one_pool_of_slots_for_all_lanes(board):
    board.add(waiter("a", 1, ["x", "y"]))
    assert take(board, "x") == "a"
    assert board.choose("y") is None


def test_a_newer_poll_of_an_agent_closes_the_older(board):
    first, second = waiter("a"), waiter("a", 2)
    board.add(first)
    assert board.add(second) is first
    assert not first.open
    assert board.capacity("default", 10) == 2
    board.remove(first)  # its handler ends later, and must not remove the newer one
    assert board.of("a") is second


def test_a_closed_poll_gets_nothing_more(board):
    closed = waiter("a", 5)
    board.add(closed)
    board.remove(closed)
    assert board.choose("default") is None
    assert len(board) == 0


def test_changes_are_told_by_lane(board):
    told = []
    board.on_change(told.append)
    one = waiter("a", 1, ["x", "y"])
    board.add(one)
    assert told == ["x", "y"]
    board.remove(one)
    assert told == ["x", "y"] * 2


def test_polls_that_come_and_go_without_work_do_not_pile_up(board):
    for _ in range(1000):
        board.remove(waiter("a")) if board.of("a") is None else board.remove(board.of("a"))
        board.add(waiter("a"))
        board.add(waiter("b"))
    assert len(board._lanes["default"]._heap) < 200


@given(
    st.lists(st.integers(min_value=0, max_value=4), min_size=1, max_size=6),
    st.lists(st.sampled_from(["take", "accept", "expire", "repoll"]), max_size=60),
)
def test_never_more_than_free_and_never_idle_with_room(slots, steps):
    clock = Clock()
    board = Board(Outstanding(clock))
    free = {f"a{number}": count for number, count in enumerate(slots)}
    for agent, count in free.items():
        board.add(waiter(agent, count))
    made: Counter[str] = Counter()
    leases: list[tuple[str, LeaseKey]] = []
    for number, step in enumerate(steps):
        room = sum(max(0, free[agent] - made[agent]) for agent in free)
        assert board.capacity("default", 1000) == room
        if step == "take":
            chosen = board.choose("default")
            assert (chosen is None) == (room == 0)
            if chosen:
                lease = LeaseKey(f"w{number}", 1)
                board.outstanding.add(chosen.agent, lease)
                board.settle(chosen)
                made[chosen.agent] += 1
                leases.append((chosen.agent, lease))
                assert made[chosen.agent] <= free[chosen.agent]
        elif step == "accept" and leases:
            agent, lease = leases.pop()
            board.outstanding.remove(lease.workload_id)
            made[agent] -= 1
            board.refresh(agent)
        elif step == "expire":
            clock.now += OFFER_SECONDS + 1
            for agent in board.outstanding.expire():
                board.refresh(agent)
            made.clear()
            leases.clear()
        elif step == "repoll":
            agent = min(free)
            board.add(waiter(agent, free[agent]))

"""Jobs in one line: each in its turn, none kept waiting by one that says nothing, fails or is closed."""

import threading
import time
from collections.abc import Generator

import pytest

from studio.base import fair_turns as turns_module
from studio.base.errors import Cancelled
from studio.base.fair_turns import Line, Turns
from tests.steps import finish


def counted(count: int) -> Generator[int, None, str]:
    yield from range(count)
    return "done"


@pytest.fixture
def _one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each counts the same."""
    monkeypatch.setattr(turns_module, "TURN", 0.0)
    monkeypatch.setattr(turns_module, "LEAST", 100.0)
    monkeypatch.setattr(turns_module, "CREDIT", 1e6)


def test_a_job_alone_is_as_it_would_be_without_a_line() -> None:
    steps = Turns().visitor().shared(counted(5))
    assert [next(steps) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert finish(steps) == "done"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_result_comes_back(count: int) -> None:
    turns = Turns()
    assert finish(turns.visitor().shared(counted(count))) == "done"
    assert turns.jobs == 0


def test_a_turn_is_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made, clock = list[int](), Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    turns = Turns()
    other = turns.visitor().shared(counted(9))
    next(other)
    steps = turns.visitor().shared(noted(made, 9, clock, 0.04))
    next(steps)
    assert made == [0, 1, 2]
    other.close()
    steps.close()


class Clock:
    """Time that passes when it is said to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def noted(made: list[int], count: int, clock: Clock, seconds: float) -> Generator[int, None, None]:
    for i in range(count):
        made.append(i)
        clock.now += seconds
        yield i


@pytest.mark.usefixtures("_one_step_a_turn")
def test_jobs_of_two_threads_take_turns() -> None:
    """Each step waits until the other job is in line; a line that did not go on to it would let the same one work."""
    turns, order = Turns(), list[str]()

    def job(name: str) -> Generator[None, None, None]:
        for step in range(20):
            while (step == 0 and turns.jobs < 2) or (turns.jobs == 2 and turns.waiting < 2):
                time.sleep(0)
            order.append(name)
            yield

    threads = [threading.Thread(target=finish, args=(turns.visitor().shared(job(name)),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert "".join(order) in ("ab" * 20, "ba" * 20)


def test_a_listener_who_does_not_come_back_keeps_nobody_waiting() -> None:
    turns = Turns()
    left = turns.visitor().shared(counted(5))
    next(left)
    assert turns.jobs == 1
    assert finish(turns.visitor().shared(counted(5))) == "done"
    left.close()
    assert turns.jobs == 0


def test_a_job_that_waits_and_does_not_come_back_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK", 0.01)
    monkeypatch.setattr(turns_module, "SHARE", 1e-9)
    turns = Turns()
    left, other = turns.visitor().shared(counted(5)), turns.visitor()
    other.account.worked = 1.0
    next(left)
    with turns.answering():
        next(left)
    assert (turns.jobs, turns.waiting) == (1, 0)
    assert finish(other.shared(counted(5))) == "done"
    left.close()


def test_a_job_that_fails_gives_its_turn_away() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no")

    turns = Turns()
    with pytest.raises(ValueError, match="no"):
        finish(turns.visitor().shared(failing()))
    assert (turns.jobs, turns.waiting) == (0, 0)
    assert finish(turns.visitor().shared(counted(5))) == "done"


def test_closing_closes_the_job() -> None:
    closed = []

    def job() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    steps = Turns().visitor().shared(job())
    next(steps)
    steps.close()
    assert closed == [True]


@pytest.mark.usefixtures("_one_step_a_turn")
def test_two_jobs_of_one_visitor_have_one_share() -> None:
    turns, order = Turns(), list[str]()
    one, other = turns.visitor(), turns.visitor()

    def job(name: str, steps: int) -> Generator[None, None, None]:
        for step in range(steps):
            while (step == 0 and turns.jobs < 3) or (turns.jobs == 3 and turns.waiting < 3):
                time.sleep(0)
            if turns.jobs == 3:
                order.append(name)
            yield

    jobs = ((one, "a", 10), (one, "b", 10), (other, "c", 20))
    threads = [threading.Thread(target=finish, args=(who.shared(job(name, count)),)) for who, name, count in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert abs(order.count("c") - order.count("a") - order.count("b")) <= 1


def test_long_jobs_rest_while_an_answer_is_computed_and_go_on_after(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns, made = Clock(), Turns(), list[int]()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(turns._moved, "wait", lambda seconds: setattr(clock, "now", clock.now + seconds))
    job = turns.visitor().shared(noted(made, 99, clock, 1.0))
    with turns.visitor().answering():
        assert next(job) == 0
        assert clock.now > 1, "it did not begin at once"
        for _ in range(7):
            assert next(job) == 0, "says again where it stood"
        assert (made, turns.answers) == ([0], 1)
    began = clock.now
    assert next(job) == 1
    assert (clock.now, turns.answers) == (began + 1, 0)
    job.close()


def test_a_job_has_its_share_of_the_time_beside_one_who_never_stops_talking(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns, made = Clock(), Turns(), list[int]()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(turns._moved, "wait", lambda seconds: setattr(clock, "now", clock.now + seconds))
    job = turns.visitor().shared(noted(made, 99, clock, 1.0))
    with turns.answering():
        while clock.now < 100:
            next(job)
    assert len(made) == pytest.approx(100 * turns_module.SHARE, abs=1)
    job.close()


def test_a_job_that_waits_ends_when_it_is_wanted_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    turns = Turns()

    def check() -> None:
        raise Cancelled

    waits = turns.visitor().shared(counted(9), check)
    with turns.answering(), pytest.raises(Cancelled):
        next(waits)
    assert (turns.jobs, turns.waiting) == (0, 0)


def test_places_are_given_in_the_order_in_which_visitors_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    turns = Turns(places=1)
    first, second, third = (turns.visitor().place() for _ in range(3))
    with finish(first):
        assert next(second) == Line(0, None)
        assert next(third) == Line(1, None)
    assert next(third).before == 0
    with finish(second):
        assert next(third).before == 0
    with finish(third):
        pass


def test_a_visitor_who_has_a_place_gets_it_again_and_gives_it_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    turns = Turns(places=1)
    one, other = turns.visitor(), turns.visitor().place()
    with finish(one.place()):
        next(other)
        with finish(one.place()):
            pass
        assert next(other).before == 0
    with finish(other):
        pass


def test_who_leaves_the_line_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    turns = Turns(places=1)
    first, second, third = (turns.visitor().place() for _ in range(3))
    with finish(first):
        next(second)
        assert next(third).before == 1
        second.close()
        assert next(third).before == 0
        third.close()


def test_the_line_says_how_long_it_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    monkeypatch.setattr(time, "monotonic", clock)
    turns = Turns(places=2)
    for seconds in (10, 30, 20):
        with finish(turns.visitor().place()):
            clock.now += seconds
    with finish(turns.visitor().place()), finish(turns.visitor().place()):
        waits = turns.visitor().place()
        assert next(waits) == Line(0, 10.0), "one of two places that are held for 20 s"
        waits.close()


@pytest.mark.usefixtures("_one_step_a_turn")
def test_newcomers_without_end_keep_nobody_from_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always one who has just come beside the one who was there first, and who has worked for a long time."""
    monkeypatch.setattr(turns_module, "LOOK", 0.0)
    turns, made = Turns(), list[int]()
    first = turns.visitor()
    first.account.worked = 1000.0
    old = first.shared(noted(made, 200, Clock(), 0.0))
    next(old)
    for _ in range(100):
        newcomer = turns.visitor()
        newcomer.account.worked = turns._level - turns_module.CREDIT
        job = turns_module._Job(newcomer)
        turns._waiting.append(job)  # it stands in line as the other asks
        next(old)
        turns._waiting.remove(job)
        assert turns._wait(job)
        turns._end(job, 0.0)
    old.close()
    assert len(made) > 30


def test_who_comes_later_begins_where_the_others_are() -> None:
    turns = Turns()
    for worked in (50.0, 10.0):  # a turn of one who had much, and of one who had little
        visitor = turns.visitor()
        visitor.account.worked = worked
        finish(visitor.shared(counted(1)))
    newcomer = turns.visitor()
    finish(newcomer.shared(counted(1)))
    assert newcomer.account.worked >= 50.0 - turns_module.CREDIT


def test_sessions_of_one_visitor_share_an_account() -> None:
    turns = Turns()
    one, same, other, nobody = (turns.visitor(number) for number in (1, 1, 2, 0))
    assert one.account is same.account
    assert other.account is not one.account
    assert turns.visitor().account is not nobody.account
    steps = one.shared(counted(3))
    next(steps)
    assert same.account.worked > other.account.worked == 0
    steps.close()


def test_one_visitor_has_two_places_of_four_however_many_sessions() -> None:
    turns = Turns(places=4)
    many = [turns.visitor(1) for _ in range(4)]
    lines = [visitor.place() for visitor in many]
    held = []
    for line in lines[:2]:
        with pytest.raises(StopIteration) as got:
            next(line)
        held.append(got.value.value)
        held[-1].__enter__()
    assert next(lines[2]) == Line(0, None)
    assert next(lines[3]) == Line(1, None)
    with pytest.raises(StopIteration):
        next(turns.visitor(2).place())
    held[0].__exit__(None, None, None)
    with pytest.raises(StopIteration):
        next(lines[2])


def test_jobs_of_a_kind_are_counted_over_the_sessions_of_a_visitor() -> None:
    turns = Turns()
    with turns.visitor(1).begun("chat", 1) as first:
        with turns.visitor(1).begun("chat", 1) as second:
            assert (first, second) == (True, False)
        with turns.visitor(1).begun("drift", 1) as another, turns.visitor(2).begun("chat", 1) as others:
            assert another
            assert others
    with turns.visitor(1).begun("chat", 1) as again:
        assert again

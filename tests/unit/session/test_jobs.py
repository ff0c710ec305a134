"""A wish to stop ends one job, once, with what it holds closed."""

from collections.abc import Generator

import pytest

from studio.base import fair_turns
from studio.base.errors import Cancelled, ModelError
from studio.base.fair_turns import Line, Turns
from studio.base.progress import JOBS, Job, Progress
from studio.base.steps import as_it_is, relayed
from studio.session.jobs import MOST_WAITING, Jobs
from tests.steps import finish


class Counted:
    """A stage of so many steps that notes whether it was closed."""

    def __init__(self, count: int) -> None:
        self.count, self.is_closed = count, False

    def steps(self) -> Generator[int, None, str]:
        try:
            yield from range(self.count)
            return "whole"
        finally:
            self.is_closed = True


def test_a_stage_is_relayed_with_its_result() -> None:
    stage = Counted(3)
    assert finish(Jobs().relay("compress", stage.steps())) == "whole"
    assert list(Jobs().relay("compress", Counted(3).steps())) == [0, 1, 2]


@pytest.mark.parametrize("job", JOBS)
def test_stop_ends_that_job_at_its_next_step_and_no_other(job: Job) -> None:
    jobs, stage = Jobs(), Counted(9)
    relayed = jobs.relay(job, stage.steps())
    next(relayed)
    jobs.stop(job)
    assert jobs.should_stop(job)()
    for other in JOBS:
        if other != job:
            jobs.raise_if_stopped(other)
    with pytest.raises(Cancelled):
        next(relayed)
    assert stage.is_closed
    assert not jobs.should_stop(job)(), "the wish is over with what it stopped"
    jobs.raise_if_stopped(job)


def test_a_job_that_is_asked_for_anew_is_not_stopped_by_an_earlier_wish() -> None:
    jobs = Jobs()
    jobs.stop_all()
    jobs.clear_stop("drift")
    assert finish(jobs.relay("drift", Counted(2).steps())) == "whole"
    with pytest.raises(Cancelled):
        jobs.raise_if_stopped("chat")


def test_a_job_ends_with_what_it_is_done_for() -> None:
    stage, is_current = Counted(9), True
    relayed = Jobs().relay("open", stage.steps(), lambda: is_current)
    next(relayed)
    is_current = False
    with pytest.raises(Cancelled):
        next(relayed)
    assert stage.is_closed


def steps_of(stage: Counted) -> Generator[Progress, None, str]:
    return relayed(stage.steps(), lambda step: Progress("compress", step, stage.count))


def test_a_long_stage_rests_while_another_session_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "LOOK", 0.01)
    monkeypatch.setattr(fair_turns, "SHARE", 1e-9)
    turns = Turns()
    talking, compressing = Jobs(turns), Jobs(turns)
    told = compressing.in_turn("compress", steps_of(Counted(3)), as_it_is)
    assert next(told).done == 0
    with talking.visitor.answering():
        assert [next(told).done for _ in range(5)] == [0] * 5
    assert [each.done for each in told] == [1, 2]


def test_a_stage_that_waits_for_its_turn_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "LOOK", 0.01)
    monkeypatch.setattr(fair_turns, "SHARE", 1e-9)
    jobs, stage = Jobs(), Counted(3)
    told = jobs.in_turn("compress", steps_of(stage), as_it_is)
    next(told)
    with jobs.visitor.answering():
        next(told)
        jobs.stop("compress")
        with pytest.raises(Cancelled):
            next(told)
    assert stage.is_closed


def test_long_jobs_take_turns_and_are_told_so() -> None:
    turns = Turns()
    one, other = (Jobs(turns).in_turn("drift", steps_of(Counted(2)), as_it_is) for _ in range(2))
    assert not next(one).is_shared
    assert next(other).is_shared
    other.close()
    assert not next(one).is_shared


def test_who_waits_for_a_place_can_change_their_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "LOOK", 0.01)
    turns = Turns(places=1)
    first, second = Jobs(turns), Jobs(turns)
    with finish(first.placed("compress")):
        waits = second.placed("compress")
        assert next(waits) == Progress("queue", line=Line(0, None))
        second.stop("compress")
        with pytest.raises(Cancelled):
            next(waits)
    with finish(second.placed("compress")):
        pass


def test_jobs_of_one_session_wait_for_each_other_and_more_than_buttons_ask_for_are_refused() -> None:
    jobs, line = Jobs(), Turns(places=1)
    with finish(jobs.one_by_one(line, "chat")):
        waiting = [jobs.one_by_one(line, "chat") for _ in range(MOST_WAITING)]
        assert [next(each) for each in waiting] == [Progress("begin")] * MOST_WAITING
        with pytest.raises(ModelError) as caught:
            next(jobs.one_by_one(line, "chat"))
        assert caught.value.key == "still_busy"
        waiting[1].close()
    with finish(waiting[0]):
        pass
    assert line.standing == 0

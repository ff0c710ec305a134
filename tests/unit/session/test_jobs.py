"""A wish to stop ends one job, once, with what it holds closed."""

from collections.abc import Generator

import pytest

from studio.base.errors import Cancelled
from studio.base.progress import JOBS, Job
from studio.session.jobs import Jobs
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

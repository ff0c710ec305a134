"""How many long jobs a visitor may begin."""

import pytest

from studio.base.errors import ResourceError
from studio.base.limits import Limits
from studio.session.visitor import Visitor
from studio.ui.door.allowance import ANSWERS, JOBS, Allowance
from studio.ui.watching.jobs import KINDS

FEW = Limits(visitor_jobs_per_hour=2, address_jobs_per_hour=3, visitor_answers_per_hour=1)
ONE, TWO = Visitor(1, 9, is_owner=False), Visitor(2, 9, is_owner=False)


def test_a_visitor_and_an_address_begin_so_many() -> None:
    allowed = Allowance(FEW)
    allowed.begin("compress", ONE)
    allowed.begin("drift", ONE)
    with pytest.raises(ResourceError, match="60 minutes"):
        allowed.begin("export", ONE)
    allowed.begin("make", TWO)
    with pytest.raises(ResourceError):
        allowed.begin("make", TWO)


def test_answers_are_counted_apart_and_small_things_not_at_all() -> None:
    allowed = Allowance(FEW)
    allowed.begin("chat", ONE)
    with pytest.raises(ResourceError):
        allowed.begin("chat", ONE)
    allowed.begin("compress", ONE)
    for _ in range(9):
        allowed.begin("open", ONE)
        allowed.begin("", ONE)


def test_the_owner_begins_what_he_likes() -> None:
    allowed = Allowance(FEW)
    for _ in range(9):
        allowed.begin("compress", Visitor())


def test_what_is_limited_is_a_kind_of_job() -> None:
    assert {*JOBS, *ANSWERS} <= set(KINDS.values())

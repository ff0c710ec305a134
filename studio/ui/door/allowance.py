"""How many long jobs a visitor may begin within an hour. Knows not what they do."""

import math
from functools import cache

from studio.base.errors import ResourceError
from studio.base.limits import Limits, limits
from studio.session.visitor import Visitor
from studio.ui.door.counting import Counting

HOUR = 3600.0
JOBS = ("compress", "make", "drift", "export", "verify")
ANSWERS = ("chat",)


class Allowance:
    """Of all visitors of a server."""

    def __init__(self, most: Limits) -> None:
        self._jobs = Counting(most.visitor_jobs_per_hour, HOUR), Counting(most.address_jobs_per_hour, HOUR)
        self._answers = Counting(most.visitor_answers_per_hour, HOUR), Counting(most.address_answers_per_hour, HOUR)

    def begin(self, kind: str, visitor: Visitor) -> None:
        """Count a job that a visitor begins. Raises ResourceError where it is one too many; the owner's never are."""
        if visitor.is_owner or kind not in (*JOBS, *ANSWERS):
            return
        of_visitor, of_address = self._jobs if kind in JOBS else self._answers
        wait = of_address.wait(visitor.address) or of_visitor.count(visitor.number)
        if wait:
            raise ResourceError("too_many_jobs", minutes=math.ceil(wait / 60))
        of_address.count(visitor.address)


@cache
def allowance() -> Allowance:
    """Return the one of this process."""
    return Allowance(limits())

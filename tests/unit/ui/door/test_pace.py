"""How much of the page somebody may have at once."""

import pytest

from studio.base.limits import Limits
from studio.ui.door.pace import Pace
from studio.ui.door.refusal import Refused
from studio.ui.door.visitors import Visitors

ADDRESS = "203.0.113.7"


def test_connections_are_held_while_they_last() -> None:
    visitors = Visitors()
    pace = Pace(Limits(visitor_connections=1, address_connections=2), visitors, dict)
    one, two, three = (visitors.who((cookie,), ADDRESS, True) for cookie in ("one", "two", "three"))
    with pace.connected(one):
        with pytest.raises(Refused), pace.connected(one):
            pass
        with pace.connected(two), pytest.raises(Refused), pace.connected(three):
            pass
    with pace.connected(one):
        pass


def test_what_an_address_is_sending_is_held_in_so_many_bytes() -> None:
    visitors = Visitors()
    pace = Pace(Limits(address_body_bytes=2000), visitors, dict)
    one, two = (visitors.who((cookie,), ADDRESS, True) for cookie in ("one", "two"))
    with pace.sending(one) as came:
        came(1000)
        came(500)
        with pytest.raises(Refused), pace.sending(two) as also:
            also(501)
        with pace.sending(two) as also:
            also(500)
    with pace.sending(two) as also:
        also(2000)


def test_calls_that_come_at_once_are_counted_before_the_queue_knows_them() -> None:
    visitors = Visitors()
    pace = Pace(Limits(session_calls=2), visitors, dict)
    who = visitors.who(("one",), ADDRESS, True)
    with pace.called(who, "a"), pace.called(who, "a"):
        with pytest.raises(Refused) as refused, pace.called(who, "a"):
            pass
        assert (refused.value.status, refused.value.key) == (429, "in_flight")
        with pace.called(who, "b"):
            pass

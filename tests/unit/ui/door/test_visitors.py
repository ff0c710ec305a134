"""Which sessions are whose."""

import pytest

from studio.ui.door import visitors as module
from studio.ui.door.visitors import Visitors

ADDRESS, OTHER = "203.0.113.7", "203.0.113.8"


def test_a_session_is_its_first_visitors() -> None:
    all_ = Visitors()
    one, two = (all_.who((cookie,), ADDRESS, False) for cookie in ("one", "two"))
    assert all_.is_new("session")
    assert all_.may_use("session", one)
    assert not all_.may_use("session", two)
    assert all_.may_use("session", one)
    assert all_.owner("session") == one


def test_a_browser_that_got_two_cookies_is_known_by_either() -> None:
    all_ = Visitors()
    assert all_.may_use("session", all_.who(("one",), ADDRESS, False))
    assert all_.may_use("session", all_.who(("two", "one"), ADDRESS, False))


def test_who_keeps_no_cookies_is_known_by_address() -> None:
    all_ = Visitors()
    assert all_.may_use("session", all_.who((), ADDRESS, False))
    assert all_.may_use("session", all_.who((), ADDRESS, False))
    assert not all_.may_use("session", all_.who((), OTHER, False))
    assert not all_.may_use("session", all_.who(("one",), OTHER, False))


def test_a_session_begun_without_a_cookie_goes_over_to_the_first_of_its_address() -> None:
    all_ = Visitors()
    assert all_.may_use("session", all_.who((), ADDRESS, False))
    assert all_.may_use("session", all_.who(("one",), ADDRESS, False))
    assert not all_.may_use("session", all_.who((), ADDRESS, False))
    assert not all_.may_use("session", all_.who(("two",), ADDRESS, False))


def test_numbers_say_the_same_of_the_same_and_nothing_else() -> None:
    all_ = Visitors()
    one, again, two = (all_.who((cookie,), ADDRESS, False).visitor for cookie in ("one", "one", "two"))
    assert one == again
    assert one.number != two.number
    assert one.address == two.address


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    all_ = Visitors()
    who = all_.who(("one",), ADDRESS, False)
    for name in ("a", "b", "a", "c"):
        all_.may_use(name, who)
    assert [all_.is_new(name) for name in "abc"] == [False, True, False]

"""What a request says of itself."""

from typing import Any

import pytest

from studio.ui.door.asked import UNKNOWN, Asked

FIRST, SECOND = "a" * 32, "B_-3" * 8


def asked(path: str = "/", peer: str = "127.0.0.1", **headers: str) -> Asked:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"method": "GET", "path": path, "headers": pairs, "client": (peer, 1), "scheme": "http"}
    return Asked.of(scope)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/", None), ("/config", None), ("/gradio_api/queue/join", "queue/join"), ("/at/gradio_api/upload", "upload")],
)
def test_what_is_asked_of_gradio_is_told_from_the_page(path: str, api: str | None) -> None:
    assert asked(path).api == api


def test_a_header_that_is_there_twice_is_none() -> None:
    scope = {"method": "GET", "path": "/", "headers": [(b"Host", b"a"), (b"host", b"b")]}
    assert Asked.of(scope).header("host") == ""


def test_cookies_of_ours_are_found_among_others() -> None:
    said = f"a=b; studio_visitor_0123abcd={FIRST}; studio_visitor_zz={FIRST}; studio_visitor_89efabcd={SECOND}; c=d"
    assert asked(cookie=said).cookies == (FIRST, SECOND)
    assert asked(cookie="studio_visitor_0123abcd=short").cookies == ()


@pytest.mark.parametrize("header", ["forwarded", "x_forwarded_for", "x_forwarded_proto", "via", "x_real_ip"])
def test_a_proxy_is_seen_by_what_it_adds(header: str) -> None:
    assert asked(**{header: "x"}).is_forwarded
    assert not asked(host="localhost").is_forwarded


def test_an_address_is_the_connections_own() -> None:
    assert asked(peer="203.0.113.7").address(has_proxy=False) == "203.0.113.7"


def test_what_a_proxy_says_is_not_believed_unless_it_is_the_owners() -> None:
    said = asked(x_forwarded_for="8.8.8.8, 10.0.0.1")
    assert said.address(has_proxy=False) == UNKNOWN
    assert said.address(has_proxy=True) == "8.8.8.8"


def test_what_a_visitor_says_before_the_proxy_is_not_believed() -> None:
    assert asked(x_forwarded_for="1.1.1.1, nonsense, 8.8.8.8, 10.0.0.1").address(has_proxy=True) == "8.8.8.8"
    assert asked(x_forwarded_for="nonsense").address(has_proxy=True) == UNKNOWN


def test_a_subscriber_has_sixty_four_bits_of_ipv6() -> None:
    one, other = (asked(peer=f"2606:4700::{end}").address(has_proxy=False) for end in (1, 2))
    assert one == other == "2606:4700::/64"
    assert asked(peer="::ffff:203.0.113.7").address(has_proxy=False) == "203.0.113.7"


def test_what_another_page_holds_in_itself_is_told_from_a_visit() -> None:
    assert asked(sec_fetch_site="cross-site", sec_fetch_mode="no-cors").is_from_another_page
    assert asked(sec_fetch_site="same-site", sec_fetch_mode="cors").is_from_another_page
    assert not asked(sec_fetch_site="cross-site", sec_fetch_mode="navigate").is_from_another_page
    assert not asked(sec_fetch_site="same-origin", sec_fetch_mode="cors").is_from_another_page

"""The names by which a page may be called."""

import socket

import pytest

from studio.ui.door.names import Names, is_loopback, name_of

HERE = Names.of("127.0.0.1", ())
OPEN = Names.of("0.0.0.0", ())
PROXIED = Names.of("127.0.0.1", ("Studio.Example.org", "*.example.net", ""))


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("localhost:7860", "localhost"),
        ("LOCALHOST", "localhost"),
        ("127.0.0.1:7860", "127.0.0.1"),
        ("[::1]:7860", "::1"),
        ("studio.example.org.", "studio.example.org"),
        ("", ""),
        ("a b", ""),
        ("user@localhost", ""),
        ("localhost:7860:1", ""),
        ("localhost/evil", ""),
        ("localhost\x00.evil", ""),
        ("localhost, evil.example", ""),
    ],
)
def test_a_name_is_all_of_an_authority_or_nothing(authority: str, name: str) -> None:
    assert name_of(authority) == name


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_known_wherever_a_page_listens(name: str) -> None:
    assert is_loopback(name)
    assert HERE.is_known(name)
    assert OPEN.is_known(name)


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_on_loopback_nothing_else_is_known(name: str) -> None:
    assert not is_loopback(name)
    assert not HERE.is_known(name)


def test_on_all_networks_addresses_are_known_and_names_of_others_are_not() -> None:
    assert OPEN.is_known("192.168.1.5")
    assert OPEN.is_known("2001:db8::1")
    assert OPEN.is_known(socket.gethostname().lower())
    assert not OPEN.is_known("evil.example")


def test_on_one_network_its_own_address_is_known_alone() -> None:
    names = Names.of("192.168.1.5", ())
    assert names.is_known("192.168.1.5")
    assert not names.is_known("192.168.1.6")


def test_the_owners_names_are_known() -> None:
    assert PROXIED.is_known("studio.example.org")
    assert PROXIED.is_known("a.example.net")
    assert not PROXIED.is_known("example.net.evil.example")
    assert not PROXIED.is_known("b.example.org")
    assert Names.of("127.0.0.1", ("*",)).is_known("evil.example")


@pytest.mark.parametrize(
    ("names", "origin", "authority", "is_own"),
    [
        (HERE, "http://127.0.0.1:7860", "127.0.0.1:7860", True),
        (HERE, "http://localhost:7860", "127.0.0.1:7860", False),
        (HERE, "http://127.0.0.1:3000", "127.0.0.1:7860", False),
        (HERE, "http://evil.example", "127.0.0.1:7860", False),
        (HERE, "null", "127.0.0.1:7860", False),
        (HERE, "file://", "127.0.0.1:7860", False),
        (HERE, "http://[", "127.0.0.1:7860", False),
        (PROXIED, "https://studio.example.org", "127.0.0.1:7860", True),
        (PROXIED, "https://studio.example.org", "studio.example.org:80", True),
        (PROXIED, "https://other.example.org", "127.0.0.1:7860", False),
        (Names.of("127.0.0.1", ("*",)), "https://evil.example", "127.0.0.1:7860", False),
    ],
)
def test_only_the_page_itself_may_call_it(names: Names, origin: str, authority: str, is_own: bool) -> None:
    assert names.is_own_origin(origin, authority) is is_own

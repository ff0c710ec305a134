"""A port on which counters are read."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from studio.ui.door.names import Names
from studio.ui.watching.port import Port


@pytest.fixture
def port() -> Iterator[Port]:
    found = Port("127.0.0.1", 0, lambda: "up 1.0\n", Names.of("127.0.0.1", ()))
    yield found
    found.close()


def asked(port: Port, path: str = "/metrics", host: str = "127.0.0.1") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port.server_port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_counters_are_there(port: Port) -> None:
    assert asked(port) == (200, b"up 1.0\n")


def test_nothing_else_is(port: Port) -> None:
    assert asked(port, "/")[0] == 404
    assert asked(port, host="evil.example")[0] == 421


def test_a_port_that_somebody_has_is_an_error(port: Port) -> None:
    with pytest.raises(OSError, match="in use"):
        Port("127.0.0.1", port.server_port, str, Names.of("127.0.0.1", ()))

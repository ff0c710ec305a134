"""A download that broke off goes on where it stopped: the running server gives the rest of a file, and says of which.

What a browser, curl and wget ask to go on: ``Range: bytes=N-`` with ``If-Range`` and the ETag of the first answer.
"""

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from tests.terminal import PATIENCE, start

BYTES = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a file that lies where the page's downloads do."""
    place = tmp_path_factory.mktemp("gradio")
    file = place / "7-0123456789abcdef0123456789abcdef" / "model.gguf"
    file.parent.mkdir()
    file.write_bytes(BYTES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start("serve", "--port", port, GRADIO_TEMP_DIR=str(place), PORT=str(port))
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        file.parent.mkdir(exist_ok=True)  # of a process that is no more, such folders are swept away at the start
        file.write_bytes(BYTES)
        yield f"http://127.0.0.1:{port}/gradio_api/file={file}"
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=PATIENCE)


def got(address: str, **headers: str) -> tuple[int, Message, bytes]:
    asked = urllib.request.Request(address, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        return answer.status, answer.headers, answer.read()


def test_the_whole_file_says_that_it_can_be_had_in_parts(address: str) -> None:
    status, headers, content = got(address)
    assert (status, content == BYTES) == (200, True)
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"]
    assert headers["Content-Length"] == str(len(BYTES))
    assert "attachment" in headers["Content-Disposition"]
    assert "model.gguf" in headers["Content-Disposition"]


def test_half_a_file_and_then_the_rest_are_the_file(address: str) -> None:
    half = len(BYTES) // 2 + 1
    asked = urllib.request.Request(address)
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # and then the line breaks
        first, tag = answer.read(half), answer.headers["ETag"]
    status, headers, rest = got(address, Range=f"bytes={half}-", If_Range=tag)
    assert status == 206
    assert headers["Content-Range"] == f"bytes {half}-{len(BYTES) - 1}/{len(BYTES)}"
    assert headers["ETag"] == tag
    assert first + rest == BYTES


def test_of_another_file_the_whole_comes(address: str) -> None:
    """One that was made anew under the same name must not be joined to half of the one before."""
    status, _, content = got(address, Range="bytes=1000-", If_Range='"another"')
    assert (status, content == BYTES) == (200, True)


def test_parts_between_and_beyond_the_end(address: str) -> None:
    status, headers, content = got(address, Range="bytes=1000-1999")
    assert (status, content) == (206, BYTES[1000:2000])
    assert headers["Content-Range"] == f"bytes 1000-1999/{len(BYTES)}"
    with pytest.raises(urllib.error.HTTPError) as caught:
        got(address, Range=f"bytes={len(BYTES)}-")
    assert caught.value.code == 416
    caught.value.close()


def test_no_file_beside_it_comes(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        got(f"{address.partition('file=')[0]}file={os.path.realpath(__file__)}", Range="bytes=0-")
    assert caught.value.code == 403
    caught.value.close()
    assert Path(__file__).is_file()

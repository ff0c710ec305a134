"""A few bytes of a file on the Hub: exactly those asked for, or a sentence; never the whole file by mistake."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest

from studio.base.errors import HubError, ModelError
from studio.checkpoint import hub_client
from studio.checkpoint.hub_client import HubRanges
from tests.hub_server import LocalHub, Model

REPO = "owner/small"
FILE = "model.safetensors"
CONTENT = bytes(range(256)) * 40_000
TOKEN = "hf_" + "x" * 30


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01))
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def model(server: LocalHub, tmp_path: Path) -> Model:
    (tmp_path / FILE).write_bytes(CONTENT)
    return server.add(REPO, tmp_path)


@pytest.fixture
def ranges(model: Model) -> HubRanges:
    return HubRanges(REPO, model.sha)


def read(ranges: HubRanges, start: int, length: int) -> bytes:
    return ranges.read(FILE, start, length).numpy().tobytes()


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 70_000), (255, 3), (len(CONTENT) - 1, 1), (7, 0)])
def test_the_bytes_asked_for_and_no_others_are_sent(
    server: LocalHub, ranges: HubRanges, start: int, length: int
) -> None:
    assert read(ranges, start, length) == CONTENT[start : start + length]
    assert server.sent(FILE) == length


def test_threads_read_at_once(ranges: HubRanges) -> None:
    places = range(0, len(CONTENT) - 1000, 100_003)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: read(ranges, start, 1000), places))
    assert found == [CONTENT[start : start + 1000] for start in places]


@pytest.mark.parametrize("fault", ["whole", "elsewhere", "unsaid", "long"])
def test_other_bytes_than_these_are_refused(server: LocalHub, ranges: HubRanges, fault: str) -> None:
    """A server that knows no ranges would send ten megabytes for a hundred bytes: it is not listened to."""
    server.fault = fault  # type: ignore[assignment]
    server.bytes_per_second = 5e6
    with pytest.raises(HubError) as caught:
        read(ranges, 1000, 100)
    assert (caught.value.key, caught.value.values) == ("hub_bad_range", {"file": FILE})
    assert len(server.requests) == 1, "there is no use in asking again"
    assert server.sent(FILE) < len(CONTENT) / 5


def test_too_few_bytes_are_refused(server: LocalHub, ranges: HubRanges) -> None:
    server.fault = "short"
    with pytest.raises(HubError) as caught:
        read(ranges, 1000, 100)
    assert caught.value.key == "hub_bad_range"


def test_a_range_past_the_end_is_refused(ranges: HubRanges) -> None:
    with pytest.raises(HubError):
        read(ranges, len(CONTENT) - 10, 11)


def test_a_line_that_breaks_once_is_no_matter(server: LocalHub, ranges: HubRanges) -> None:
    server.fault = "breaks"
    assert read(ranges, 1000, 100) == CONTENT[1000:1100]
    assert len(server.requests) == 2


@pytest.mark.parametrize(("status", "asked"), [(503, 3), (500, 3), (429, 3), (416, 1)])
def test_a_server_that_stumbles_is_asked_again_one_that_refuses_is_not(
    server: LocalHub, ranges: HubRanges, status: int, asked: int
) -> None:
    server.status = status
    with pytest.raises(HubError, match="patience" if status == 429 else f"HTTP {status}"):
        read(ranges, 0, 10)
    assert len(server.requests) == asked


def test_nobody_answers(ranges: HubRanges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match="does not answer"):
        read(ranges, 0, 10)


def test_a_repository_that_was_closed_says_so(server: LocalHub, tmp_path: Path) -> None:
    model = server.add(REPO, tmp_path, gated=True)
    with pytest.raises(ModelError, match="accept their terms"):
        read(HubRanges(REPO, model.sha), 0, 10)


class TestFilesKeptElsewhere:
    @pytest.fixture(autouse=True)
    def login(self, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
        server.elsewhere = True
        monkeypatch.setenv("HF_TOKEN", TOKEN)

    def test_the_hub_is_asked_for_the_way_once_and_the_login_stays_with_it(
        self, server: LocalHub, ranges: HubRanges
    ) -> None:
        for start in (0, 5000, 9000):
            assert read(ranges, start, 100) == CONTENT[start : start + 100]
        at_the_hub = [request for request in server.requests if "/resolve/" in request.path]
        elsewhere = [request for request in server.requests if request.path.startswith("/stored/")]
        assert (len(at_the_hub), len(elsewhere)) == (1, 3)
        assert at_the_hub[0].authorization == f"Bearer {TOKEN}"
        assert {request.authorization for request in elsewhere} == {None}
        assert server.sent(FILE) == 300

    def test_a_signature_that_has_become_too_old_is_asked_for_anew(self, server: LocalHub, ranges: HubRanges) -> None:
        read(ranges, 0, 100)
        server.signature += 1
        server.requests.clear()
        assert read(ranges, 5000, 100) == CONTENT[5000:5100]
        assert [request.path.split("/")[1] for request in server.requests] == ["stored", "owner", "stored"]
        assert read(ranges, 6000, 100) == CONTENT[6000:6100]
        assert len(server.requests) == 4

    def test_threads_share_the_way(self, server: LocalHub, ranges: HubRanges) -> None:
        barrier = threading.Barrier(4)

        def some(start: int) -> bytes:
            barrier.wait()
            return read(ranges, start, 1000)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(some, range(0, 4000, 1000))) == [CONTENT[i : i + 1000] for i in range(0, 4000, 1000)]
        server.requests.clear()
        read(ranges, 0, 10)
        assert len(server.requests) == 1

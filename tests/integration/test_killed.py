"""``kill -9`` at three moments of an export from the Hub: nothing half, wrong or left. More: ``tests.killed``."""

from collections.abc import Iterator

import pytest

from tests import killed
from tests.hub_server import LocalHub

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.usefixtures("builtin")]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalHub]:
    with killed.hub() as server:
        yield server


def test_a_killed_export_is_made_again_with_the_same_bytes(server: LocalHub) -> None:
    with killed.place(server) as place:
        seconds, made, said = killed.whole(place, "export")
        assert place.faults == []
        assert set(made) == {"made.gguf"}
        assert place.left() == []
    for share in (0.5, 0.75, 0.95):
        with killed.place(server) as place:
            assert killed.killed_in_terminal(place, "export", share * seconds, made, said) == []

"""A real llama.cpp for the tests of this folder, fetched once where node is there; they are skipped where it is not."""

from collections.abc import Iterator

import pytest

from studio.base.settings import settings
from studio.export.gguf.llama_cpp import LlamaCpp, found
from tests.engines.installed import installed


@pytest.fixture(scope="session")
def engine() -> Iterator[LlamaCpp]:
    patch = pytest.MonkeyPatch()
    patch.setenv("STUDIO_NODE_LLAMA", str(installed()))
    settings.cache_clear()
    here = found()
    assert here is not None
    yield here
    patch.undo()
    settings.cache_clear()

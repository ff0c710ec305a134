"""One page in a process of its own, opened by a new visitor."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.conftest import SHARED, served
from tests.walking import Visit, plain, ready


@pytest.fixture(scope="module")
def address(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, with the built-in model prepared, and with llama.cpp where the tests have one.

    One for each file: sessions of visitors who left are held for an hour, and one server for all grew slower.
    """
    node = os.environ.get("STUDIO_NODE_LLAMA", str(SHARED / "node"))
    with served(tmp_path_factory.mktemp("server"), STUDIO_NODE_LLAMA=node) as found:
        yield found


@pytest.fixture
def page(visit: Visit, address: str) -> Page:
    """The page as an English visitor finds it, when the model is there."""
    return ready(visit(plain(address)))

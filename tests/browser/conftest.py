"""Two pages in processes of their own, which the files share, opened by new visitors.

Starting one costs as much as three visits. Whoever closes a tab gives back what they held, so that one is as quick at
the end as at the beginning. What needs a limit or a setting of its own is served by its own file.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from studio.checkpoint.open_model import HUB_DEFAULT
from tests.conftest import SHARED, save_tiny_model, served, visiting
from tests.hub_server import LocalHub
from tests.walking import Visit, plain, ready


@pytest.fixture(scope="session")
def address(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the built-in model prepared, without a Hub, and with llama.cpp where the tests have one."""
    node = os.environ.get("STUDIO_NODE_LLAMA", str(SHARED / "node"))
    with served(tmp_path_factory.mktemp("server"), STUDIO_NODE_LLAMA=node) as found:
        yield found


@pytest.fixture
def page(visit: Visit, address: str) -> Page:
    """The page as an English visitor finds it, when the model is there."""
    return ready(visit(plain(address)))


@pytest.fixture(scope="module")
def looked_at(chromium: Any, address: str) -> Iterator[Page]:
    """The same, one for all tests of a file that leave it as they find it."""
    with visiting(chromium) as visit:
        yield ready(visit(plain(address)))


@dataclass(frozen=True)
class Own:
    """A page of one's own: it opens local folders, and models of a Hub on this machine."""

    address: str
    hub: LocalHub
    downloads: Path
    """Where the Hub's files come to."""

    def opening(self, model: object) -> str:
        """Return the address of the page with a model, by its name or folder."""
        return f"{plain(self.address)}&model={model}"


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """One for all files: each adds models under names of its own. The default's name has a tiny one."""
    folder = tmp_path_factory.mktemp("own")
    save_tiny_model("llama", folder / "model")
    with LocalHub() as hub:
        hub.add(HUB_DEFAULT, folder / "model")
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(folder / "hub"), "STUDIO_LOCAL_FILES": "1"}
        with served(folder, "--port", "0", **settings) as address:
            yield Own(address, hub, folder / "hub")

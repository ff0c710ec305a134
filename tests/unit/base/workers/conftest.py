"""A worker in a process of its own, which ends with the test."""

from collections.abc import Iterator

import pytest

from studio.base.workers import ProcessWorker


@pytest.fixture
def process() -> Iterator[ProcessWorker]:
    made = ProcessWorker()
    yield made
    made.close()

"""What a process may take by its control groups: the least of all above it, files that were read not counted."""

from pathlib import Path

import pytest

from studio.base import control_group
from studio.base.control_group import free_in_group

MB = 1 << 20
FILES = {"inactive_file": 30 * MB, "active_file": 20 * MB, "anon": 150 * MB}


def first(root: Path, name: str, limit: int, used: int) -> None:
    """Make a group of version 1."""
    folder = root / "memory" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("".join(f"total_{key} {value}\n" for key, value in FILES.items()))


def unified(root: Path, name: str, limit: str, used: int) -> None:
    """Make a group of version 2."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("".join(f"{key} {value}\n" for key, value in FILES.items()))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control_group, "MOUNTS", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "SELF", tmp_path / "self")
    return tmp_path / "cgroup"


def of(root: Path, *lines: str) -> int | None:
    (root.parent / "self").write_text("\n".join(lines) + "\n")
    return free_in_group()


def test_version_1_is_read(root: Path) -> None:
    first(root, "", 9223372036854771712, 900 * MB)
    first(root, "job", 1000 * MB, 200 * MB)
    assert of(root, "5:cpu,cpuacct:/job", "4:memory:/job", "0::/") == 850 * MB


def test_version_2_is_read(root: Path) -> None:
    unified(root, "service", "max", 500 * MB)
    unified(root, "service/job", str(1000 * MB), 200 * MB)
    assert of(root, "0::/service/job") == 850 * MB


def test_the_limit_of_a_group_above_holds_too(root: Path) -> None:
    unified(root, "service", str(300 * MB), 290 * MB)
    unified(root, "service/job", str(1000 * MB), 200 * MB)
    assert of(root, "0::/service/job") == 60 * MB


def test_a_container_that_is_told_the_name_on_its_host_finds_its_own(root: Path) -> None:
    first(root, "", 1000 * MB, 200 * MB)
    assert of(root, "4:memory:/docker/0123abcd") == 850 * MB


def test_a_name_that_leads_out_is_not_followed(root: Path) -> None:
    unified(root, "", str(1000 * MB), 200 * MB)
    unified(root.parent, "elsewhere", str(1 * MB), 0)
    assert of(root, "0::/../elsewhere") == 850 * MB


def test_more_than_the_limit_is_nothing_left(root: Path) -> None:
    unified(root, "", str(100 * MB), 200 * MB)
    assert of(root, "0::/") == 0


def test_without_limits_there_is_none(root: Path) -> None:
    assert free_in_group() is None, "not Linux"
    unified(root, "", "max", 200 * MB)
    assert of(root, "0::/") is None
    assert of(root, "0::/gone") is None
    (root / "memory.max").write_text("what?\n")
    assert of(root, "0::/") is None

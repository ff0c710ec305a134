"""What somebody has leased is nobody's alone, in this process or another, until whoever holds it is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

from studio.base import leases

pytestmark = pytest.mark.usefixtures("empty_cache")
HOLD = """import sys
from pathlib import Path
from studio.base import leases
class Holder: pass
holder = Holder()
leases.hold(Path(sys.argv[1]), holder)
print("held", flush=True)
sys.stdin.read()"""


class Holder:
    pass


def is_free(path: Path, fresh: float = 0) -> bool:
    with leases.alone(path, fresh) as found:
        return found


def test_a_lease_ends_with_its_holder(tmp_path: Path) -> None:
    assert is_free(tmp_path), "never leased"
    first, second = Holder(), Holder()
    leases.hold(tmp_path, first)
    leases.hold(tmp_path, second)
    del first
    assert not is_free(tmp_path)
    del second
    assert is_free(tmp_path)


def test_a_lease_of_another_process_ends_when_it_is_killed(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert not is_free(tmp_path)
    other.kill()
    other.communicate()
    assert is_free(tmp_path)


def test_what_was_touched_just_now_may_be_leased_next(tmp_path: Path) -> None:
    assert leases.last_used(tmp_path) is None
    leases.touch(tmp_path)
    assert leases.last_used(tmp_path) is not None
    assert not is_free(tmp_path, leases.FRESH_SECONDS)
    assert is_free(tmp_path)


def test_without_a_place_for_leases_nothing_fails(empty_cache: Path, tmp_path: Path) -> None:
    empty_cache.write_text("a file where the folder should be")
    leases.touch(tmp_path)
    leases.hold(tmp_path, Holder())
    assert is_free(tmp_path)

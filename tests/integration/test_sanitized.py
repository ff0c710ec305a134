"""The compiled code under sanitizers, in short form: whole steps on arrays that end at guard pages, and the team."""

from pathlib import Path

import pytest

from tests import sanitized


@pytest.mark.parametrize("name", [pytest.param("address", marks=pytest.mark.thorough), "thread"])
def test_the_compiled_code_under_a_sanitizer(name: str) -> None:
    """``make test-native-sanitized`` is the long form, with undefined behaviour, which takes minutes to compile."""
    if not Path(sanitized.environment(name)["LD_PRELOAD"]).is_absolute():
        pytest.skip(f"this compiler has no sanitizer of this kind: {name}")
    sanitized.build(name)
    done = sanitized.run(name, sanitized.SHORT)
    assert sanitized.is_sound(done), done.stdout[-3000:] + done.stderr[-3000:]

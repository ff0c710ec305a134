"""What children see of the server's environment: by name, and no secret whatever it is called."""

import os

import pytest

from studio.base.settings import settings
from studio.base.workers.environment import environment, is_given


@pytest.mark.parametrize("name", ["PATH", "HF_HOME", "STUDIO_CACHE_DIR", "OMP_NUM_THREADS", "LC_ALL", "ASAN_OPTIONS"])
def test_what_they_need_they_get(name: str) -> None:
    assert is_given(name)


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "STUDIO_PASSWORD",
        "TRANSFORMERS_AUTH",
        "XDG_SESSION_COOKIE",
        "NVIDIA_API_KEY",
        "TORCH_PAT",
        "PYTHONSTARTUP",
        "ANYTHING_ELSE",
    ],
)
def test_secrets_and_what_is_unknown_they_do_not(name: str) -> None:
    assert not is_given(name)


def test_the_servers_own_word_on_where_it_listens_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """On it depends whose login is used; a variable that came later changes nothing."""
    listens = settings().host
    monkeypatch.setenv("STUDIO_HOST", "0.0.0.0")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    given = environment()
    assert given["STUDIO_HOST"] == listens
    assert "HF_TOKEN" not in given


def test_this_package_is_found_first_and_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    here, *others = environment()["PYTHONPATH"].split(os.pathsep)
    assert others == ["/elsewhere"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/elsewhere", here, ""]))
    assert environment()["PYTHONPATH"].split(os.pathsep) == [here, "/elsewhere"]

"""What one visitor, and one address, may ask."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from studio.base.limits import Limits


def test_the_environment_changes_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_LIMIT_VISITOR_JOBS_PER_HOUR", "3")
    assert Limits().visitor_jobs_per_hour == 3
    monkeypatch.setenv("STUDIO_LIMIT_VISITOR_JOBS_PER_HOUR", "0")
    with pytest.raises(ValidationError):
        Limits()


def test_one_address_cannot_fill_the_queue_and_one_visitor_no_address() -> None:
    by_default = Limits()
    assert by_default.session_calls < by_default.visitor_calls < by_default.address_calls < by_default.queue
    for kind in ("tabs", "connections", "uploads_per_hour", "jobs_per_hour", "answers_per_hour"):
        assert getattr(by_default, f"visitor_{kind}") < getattr(by_default, f"address_{kind}")


def test_the_owners_guide_has_every_limit() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "public.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(STUDIO_LIMIT_\w+)` \| ([\d.]+) \|", guide, re.MULTILINE))
    assert rows == {f"STUDIO_LIMIT_{name.upper()}": str(value) for name, value in Limits().model_dump().items()}

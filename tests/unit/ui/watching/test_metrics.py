"""The counters of a page."""

import re
from pathlib import Path

from studio.ui.watching.jobs import Ended
from studio.ui.watching.metrics import Metrics

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[a-z_]+"(,[a-z]+="[a-z_]+")*\})? -?[0-9.e+]+')


def test_jobs_refusals_and_how_things_stand_are_told(tmp_path: Path) -> None:
    metrics = Metrics(lambda: 5, tmp_path)
    metrics.ended(Ended("compress", 1, 2.5, "done"))
    metrics.ended(Ended("compress", 2, 0.5, "failed", "ValueError"))
    metrics.refused("host")
    metrics.refused("host")
    lines = metrics.text().splitlines()
    assert 'studio_jobs_total{kind="compress",outcome="done"} 1.0' in lines
    assert 'studio_jobs_total{kind="compress",outcome="failed"} 1.0' in lines
    assert 'studio_jobs_total{kind="chat",outcome="done"} 0.0' in lines
    assert 'studio_job_seconds_total{kind="compress"} 3.0' in lines
    assert 'studio_requests_refused_total{reason="host"} 2.0' in lines
    assert "studio_queue_calls 5.0" in lines
    assert [line for line in lines if not line.startswith("# ") and not SAMPLE.fullmatch(line)] == []
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(told['studio_memory_bytes{of="server"}']) > 1e6
    assert float(told["studio_disk_free_bytes"]) > 0


def test_a_disk_that_cannot_be_asked_is_left_out(tmp_path: Path) -> None:
    assert "disk" not in Metrics(lambda: 0, tmp_path / "gone").text()

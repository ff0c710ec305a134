"""Prometheus' text format."""

from studio.ui.watching.exposition import Family, exposed, number


def test_each_name_is_told_once_with_its_numbers() -> None:
    jobs = Family("jobs_total", "counter", "Jobs.", ("kind", "outcome"), {("chat", "done"): 2, ("drift", "left"): 0.5})
    assert exposed([jobs, number("up", "gauge", "Up.", True)]) == (
        "# HELP jobs_total Jobs.\n"
        "# TYPE jobs_total counter\n"
        'jobs_total{kind="chat",outcome="done"} 2.0\n'
        'jobs_total{kind="drift",outcome="left"} 0.5\n'
        "# HELP up Up.\n"
        "# TYPE up gauge\n"
        "up 1.0\n"
    )


def test_what_would_end_a_value_is_escaped() -> None:
    told = exposed([Family("a", "gauge", "One\nor \\ two.", ("b",), {('"\n\\',): 1})])
    assert told == '# HELP a One\\nor \\\\ two.\n# TYPE a gauge\na{b="\\"\\n\\\\"} 1.0\n'

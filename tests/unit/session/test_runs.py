"""What a visitor made: kept, replaced by what is known better, and found again by a key."""

from dataclasses import replace

from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.runs import MOST_RUNS, MOST_VISITORS, Run, Runs, RunShelf

PLAN = make_plan([Layer("a.0.weight", ("a.0.weight",), Kind.LINEAR, (64, 64))], Choice())
RUN = Run(0, "job", "builtin", PLAN, "gguf", PLAN.compressed_bytes, 1.5)


def test_runs_are_numbered_and_one_of_the_same_job_takes_its_place() -> None:
    runs = Runs()
    assert runs.keep(RUN).number == 1
    assert runs.keep(replace(RUN, job="other")).number == 2
    assert runs.keep(replace(RUN, seconds=9.0)).number == 1
    assert [(run.number, run.seconds) for run in runs] == [(1, 9.0), (2, 1.5)]
    assert runs.numbered(2) == replace(RUN, number=2, job="other")
    assert runs.numbered(3) is None


def test_the_oldest_runs_go_and_numbers_are_not_given_twice() -> None:
    runs = Runs()
    for number in range(MOST_RUNS + 3):
        runs.keep(replace(RUN, job=str(number)))
    assert len(runs) == MOST_RUNS
    assert [run.number for run in runs][-1] == MOST_RUNS + 3


def test_a_key_finds_its_runs_and_one_that_nobody_has_finds_none() -> None:
    shelf = RunShelf()
    key, runs = shelf.of("")
    runs.keep(RUN)
    assert len(key) > 20
    assert shelf.of(key) == (key, runs)
    other, none = shelf.of("guessed")
    assert other not in ("guessed", key)
    assert len(none) == 0


def test_visitors_who_came_long_ago_are_forgotten() -> None:
    shelf = RunShelf()
    first, _ = shelf.of("")
    for _ in range(MOST_VISITORS):
        shelf.of("")
    assert shelf.of(first)[0] != first


def test_two_runs_are_ticked_and_of_three_the_first_goes() -> None:
    runs = Runs()
    for job in ("a", "b", "c"):
        runs.keep(replace(RUN, job=job))
    runs.tick(3)
    assert runs.pair() is None
    runs.tick(1)
    assert [run.number for run in runs.pair() or ()] == [1, 3]
    runs.tick(2)
    assert [run.number for run in runs.pair() or ()] == [1, 2]
    runs.tick(2)
    runs.tick(9)
    assert runs.ticked == (1,)

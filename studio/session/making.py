"""The one button: the plan carried out, both models asked, and what is lost measured, in one go. Knows no pages.

Each step that ends stays: cancelled while the loss is measured, there is a compressed copy with its answers.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from studio.base.progress import Job, Progress
from studio.base.steps import relayed
from studio.session.expected import STEPS, Expected, expected, noted_as, took
from studio.session.session import Session

JOBS: tuple[Job, ...] = ("compress", "chat", "drift")
"""What may be running."""


@dataclass(frozen=True)
class MakingStep:
    """Where it stands."""

    progress: Progress
    name: str
    """One of ``STEPS``."""
    remaining: float
    """About how many seconds there are to go."""

    @property
    def number(self) -> int:
        return STEPS.index(self.name) + 1


def make(session: Session, prompts: Sequence[str]) -> Generator[MakingStep, None, None]:
    """Compress the plan on show, ask both models ``prompts``, measure the loss on a few windows, and keep the run.

    A copy that is of this plan already is not made again. Raises UserError, and Cancelled where it was stopped.
    """
    guess = expected(session, len(prompts))

    def waits(progress: Progress) -> MakingStep:
        return MakingStep(progress, STEPS[0], guess.total)

    if not session.is_copy_of_plan:
        session.measurements.check_can_predict()
        yield from relayed(session.fetch(), waits)  # which others need not wait for
    with (yield from relayed(session.jobs.placed("compress"), waits)):
        yield from _made(session, prompts, _Clock(guess, session))


def _made(session: Session, prompts: Sequence[str], clock: "_Clock") -> Iterator[MakingStep]:
    if not session.is_copy_of_plan:
        yield from clock.timed("compress", session.compress())
    session.note_run()
    if session.checkpoint is None or not session.checkpoint.can_chat:
        return
    yield from clock.timed("samples", session.ask_samples(prompts))
    session.note_run()
    if session.copy.drift is None:
        yield from clock.timed("drift", session.measure_drift(is_short=True))
    session.note_run()


def stop(session: Session) -> None:
    """Ask whatever step runs to end."""
    for job in JOBS:
        session.jobs.stop(job)


def clear_stop(session: Session) -> None:
    """Forget an earlier wish to stop."""
    for job in JOBS:
        session.jobs.clear_stop(job)


class _Clock:
    """Says at each step how long the rest will take."""

    def __init__(self, guess: Expected, session: Session) -> None:
        self._guess = guess
        self._names = {step: noted_as(step, session) for step in STEPS}

    def timed(self, name: str, steps: Iterator[Progress]) -> Iterator[MakingStep]:
        began = time.monotonic()
        for progress in steps:
            elapsed = time.monotonic() - began
            fraction = (progress.fraction or 0.0) if progress.stage == name or name != "compress" else 0.0
            yield MakingStep(progress, name, self._guess.remaining(name, fraction, elapsed))
        took(self._names[name], time.monotonic() - began, self._guess.seconds[name])

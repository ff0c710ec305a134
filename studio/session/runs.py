"""What a visitor has made so far: a line for every plan that was carried out, with what it lost. Knows no models.

Lines are small and frozen; the files that they speak of may be gone. :class:`RunShelf` keeps them for a visitor who
reloads the page, under a key that only their browser knows.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from studio.chat.conversation import Turn
from studio.evaluation.figures import Evaluation
from studio.planning.choice import Choice
from studio.planning.plan import Plan

MOST_RUNS = 50
"""Of one visitor."""
MOST_VISITORS = 500


@dataclass(frozen=True)
class Run:
    """One plan that was carried out."""

    number: int
    """As the page calls it: 1, 2, …"""
    job: str
    """What it was made of: the same job gives the same copy."""
    model: str
    plan: Plan
    target: str
    """The name of the export target that it was planned for."""
    nbytes: int
    """Of the weights in that target."""
    seconds: float
    """That compressing took."""
    calibrated_on: str | None = None
    """The name of the text that its method read, None for the built-in one, or none."""
    evaluation: Evaluation | None = None
    measured_on: str = ""
    """The name of the text that ``evaluation`` read, empty for the built-in ones."""
    answers: tuple[Turn, ...] = ()

    @property
    def choice(self) -> Choice:
        return self.plan.choice

    @property
    def tokens_per_second(self) -> float | None:
        """Of the compressed model's answers, here; None while there is none of more than one token."""
        replies = [turn.answers.replies[-1] for turn in self.answers if turn.answers.replies]
        tokens = sum(reply.tokens - 1 for reply in replies if reply.tokens > 1)
        seconds = sum(reply.decode_seconds for reply in replies if reply.tokens > 1)
        return tokens / seconds if seconds else None


@dataclass(frozen=True)
class Judged:
    """What a file that others made was found to lose."""

    name: str
    model: str
    """The original that it was compared with."""
    nbytes: int
    """Of its weights."""
    evaluation: Evaluation
    measured_on: str = ""
    """The name of the text that was read, empty for the built-in ones."""


@dataclass
class Runs:
    """One visitor's, oldest first."""

    lines: list[Run] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    """Of others."""
    ticked: tuple[int, ...] = ()
    """The numbers of those to be compared, two at most; the one ticked last stands last."""
    _numbers: int = 0

    def __iter__(self) -> Iterator[Run]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, run: Run) -> Run:
        """Add a run, or put it in the place of the one of the same job; its number is given here."""
        for place, before in enumerate(self.lines):
            if before.job == run.job and before.target == run.target:
                self.lines[place] = replace(run, number=before.number, answers=run.answers or before.answers)
                return self.lines[place]
        self._numbers += 1
        self.lines.append(replace(run, number=self._numbers))
        del self.lines[:-MOST_RUNS]
        return self.lines[-1]

    def note(self, judged: Judged) -> None:
        """Keep what was found of a file of others, in the place of what was found of it before."""
        others = [each for each in self.judged if (each.name, each.model) != (judged.name, judged.model)]
        self.judged = [*others, judged][-MOST_RUNS:]

    def tick(self, number: int) -> None:
        """Take a run to be compared, or leave it again; of three the one that was ticked first goes."""
        if number in self.ticked:
            self.ticked = tuple(each for each in self.ticked if each != number)
        elif self.numbered(number) is not None:
            self.ticked = (*self.ticked, number)[-2:]

    def pair(self) -> tuple[Run, Run] | None:
        """Return the two runs that are ticked, the earlier one first; None while there are not two."""
        found = [run for run in self.lines if run.number in self.ticked]
        return (found[0], found[1]) if len(found) == 2 else None

    def numbered(self, number: int) -> Run | None:
        return next((run for run in self.lines if run.number == number), None)


class RunShelf:
    """The runs of the visitors of one process, by their keys; those that came last stay."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Runs] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> tuple[str, Runs]:
        """Return the runs kept under ``key``; a new key with none where nothing is kept under it."""
        with self._lock:
            if key not in self._kept:
                key = secrets.token_urlsafe(16)
                self._kept[key] = Runs()
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_VISITORS:
                self._kept.popitem(last=False)
            return key, self._kept[key]

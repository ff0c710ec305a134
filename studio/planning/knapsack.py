"""One option of each group, the least loss within a size: the multiple-choice knapsack, solved exactly.

``scipy.optimize.milp`` (HiGHS) proves the answer; before it, the linear relaxation leaves out what cannot be part of
it, so that hundreds of groups take milliseconds. Source of the reduction: Sinha and Zoltners (1979). Knows nothing of
layers or bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
SCALE = 100.0
"""What the gap between bound and first answer becomes in the solver's objective, whose own tolerance is 1e-6."""
TOLERANCE = 1e-6
"""Of the least loss: an answer so near to the bound is taken; thousands of groups need no proof to the last bit."""
NODES = 500
"""Of the solver's tree, after which the best answer so far is taken: never reached by hundreds of groups."""
SLACK = 1e-12
"""Of the sums: what rounding may have cost a bound."""


@dataclass(frozen=True)
class Option:
    """One way to be: ``size`` a whole number, ``loss`` finite and not negative, both adding up over groups."""

    size: int
    loss: float


@dataclass(frozen=True, eq=False)
class _Group:
    """The options of a group that can be part of an answer, smallest first, each with less loss than those before."""

    places: list[int]
    sizes: NDArray[np.int64]
    losses: Numbers


def least_loss(groups: Sequence[Sequence[Option]], limit: int) -> list[int] | None:
    """Return the place of the option that each group takes: of all ways whose sizes add up to at most ``limit``, one of
    least loss. None where even the smallest are too large. Raises ValueError for a group without options.
    """
    known = [_group(options) for options in groups]
    smallest = sum(int(group.sizes[0]) for group in known)
    if smallest > limit:
        return None
    rate, taken = _greedy(known, limit - smallest)
    relaxed = [group.losses + rate * group.sizes for group in known]
    bound = sum(float(each.min()) for each in relaxed) - rate * limit
    loss = sum(float(group.losses[at]) for group, at in zip(known, taken, strict=True))
    gap = loss - bound + SLACK * (abs(loss) + rate * limit)
    kept = [np.flatnonzero(each - each.min() <= gap) for each in relaxed]
    kept = [places if at in places else np.append(places, at) for places, at in zip(kept, taken, strict=True)]
    best = None if gap <= TOLERANCE * loss else _proved(known, kept, limit, gap, loss)
    return [group.places[at] for group, at in zip(known, taken if best is None else best, strict=True)]


def _group(options: Sequence[Option]) -> _Group:
    """Return the options of which none is both as small and as good as another."""
    if not options:
        raise ValueError("a group without options")
    order = sorted(range(len(options)), key=lambda i: (options[i].size, options[i].loss, i))
    places: list[int] = []
    for i in order:
        if not places or options[i].loss < options[places[-1]].loss:
            places.append(i)
    sizes = np.array([options[i].size for i in places], dtype=np.int64)
    return _Group(places, sizes, np.array([options[i].loss for i in places], dtype=np.float64))


def _greedy(groups: Sequence[_Group], room: int) -> tuple[float, list[int]]:
    """Return what a unit of size is worth where the room ends, in loss, and an answer: steps along each group's lower
    convex hull, those first that save most for their size; later ones as far as they still fit."""
    steps = []
    for number, group in enumerate(groups):
        hull = _hull(group)
        for before, after in pairwise(hull):
            size = int(group.sizes[after] - group.sizes[before])
            steps.append(((group.losses[before] - group.losses[after]) / size, number, before, after, size))
    steps.sort(key=lambda step: (-step[0], step[1], step[2]))
    rate = 0.0
    taken = [0] * len(groups)
    for worth, number, before, after, size in steps:
        if size <= room and taken[number] == before:
            taken[number], room = after, room - size
        elif not rate:
            rate = float(worth)  # the first that does not fit
    return rate, taken


def _hull(group: _Group) -> list[int]:
    hull: list[int] = []
    for i in range(len(group.places)):
        while len(hull) > 1 and _is_above(group, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull


def _is_above(group: _Group, a: int, b: int, c: int) -> bool:
    """Return whether option b lies on or above the line from a to c."""
    sizes, losses = group.sizes, group.losses
    return bool((losses[a] - losses[b]) * (sizes[c] - sizes[a]) <= (losses[a] - losses[c]) * (sizes[b] - sizes[a]))


def _proved(
    groups: Sequence[_Group], kept: Sequence[NDArray[np.int64]], limit: int, gap: float, upper: float
) -> list[int] | None:
    """Return the best answer among the options ``kept`` of each group, None where the solver finds none. ``upper``: the
    loss of one, at most ``gap`` above the least."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second, and only plans with a budget need it
    from scipy.sparse import csr_array

    found = [int(places[0]) for places in kept]
    open_ = [number for number, places in enumerate(kept) if len(places) > 1]
    if not open_:
        return found
    rest = limit - sum(int(groups[i].sizes[at]) for i, at in enumerate(found) if len(kept[i]) == 1)
    counts = [len(kept[number]) for number in open_]
    sizes = np.concatenate([groups[number].sizes[kept[number]] for number in open_])
    losses = np.concatenate([groups[n].losses[kept[n]] - groups[n].losses[kept[n]].min() for n in open_])
    unit = int(np.gcd.reduce(sizes))
    which = np.repeat(np.arange(len(open_)), counts)
    one_each = csr_array((np.ones(len(sizes)), (which, np.arange(len(sizes)))), shape=(len(open_), len(sizes)))
    within = csr_array((sizes // unit).astype(np.float64)[None])
    # Relative to the objective, which is what the solver's tolerance is; without presolve, which in HiGHS of today may
    # write to stdout, as its search may still (``cli/commands.py`` keeps that from an answer).
    fixed = sum(float(groups[i].losses[places].min()) for i, places in enumerate(kept))
    answer = milp(
        losses * (SCALE / gap),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(within, -np.inf, rest // unit)],
        integrality=np.ones(len(sizes), dtype=np.int64),
        bounds=Bounds(0, 1),
        options={
            "mip_rel_gap": TOLERANCE * upper / max(upper - fixed, TOLERANCE * upper),
            "node_limit": NODES,
            "presolve": False,
        },
    )
    if answer.x is None:
        return None
    start = 0
    for number, count in zip(open_, counts, strict=True):
        found[number] = int(kept[number][int(answer.x[start : start + count].argmax())])
        start += count
    return found

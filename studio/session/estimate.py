"""A model's name and a choice -> the plan, from headers and what is kept of earlier visits. Needs no torch.

Where the plan needs figures that are not kept, a session measures them.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from studio.base.progress import Progress
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.open_model import open_model
from studio.planning import survey_file
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.planning.settled import as_far_as_possible


def estimate(
    name: str, choice: Choice, paths: bool = True, keep_group_size: bool = True
) -> Generator[Progress, None, tuple[Checkpoint, Plan]]:
    """Yield while the model called ``name`` is opened, and looked at if need be; return it with its plan.

    ``keep_group_size``: whether one that does not fit is an error, or gives way to one that does. Layers of a model
    whose files are not here are ranked by what is known of them.

    Raises ModelError, HubError, CheckpointError or SchemeError.
    """
    checkpoint = yield from open_model(name, paths)
    choice = taken(choice, checkpoint, keep_group_size)
    scores = survey_file.recall(checkpoint).sensitivities(checkpoint.layers) if choice.is_mixed else None
    if choice.is_mixed and (scores is None or choice.sensitivity == "damage"):
        from studio.session.session import Session  # brings torch

        with closing(Session(paths=paths, choice=choice)) as session:
            yield from session.open(name)
            session.planner.choose(choice)
            yield from session.measurements.rank()
            return checkpoint, session.planner.choose(choice)
    return checkpoint, make_plan(checkpoint.layers, choice, scores)


def taken(choice: Choice, checkpoint: Checkpoint, keep_group_size: bool) -> Choice:
    """Return ``choice``, with a group size that fits this model unless ``keep_group_size``."""
    if keep_group_size:
        return choice
    return replace(choice, group_size=as_far_as_possible(choice, checkpoint).group_size)

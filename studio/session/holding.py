"""A model and a choice, or a folder that was compressed -> what each target makes of it. Writes nothing.

Knows no target by name.
"""

from collections.abc import Generator

from studio.base.errors import SchemeError
from studio.base.progress import Progress
from studio.base.typed_paths import typed_path
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.recipe import is_compressed
from studio.export.compressed_model import opened
from studio.export.holding import Held, every_target
from studio.planning import survey_file
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.session.estimate import estimate


def held(
    source: str, choice: Choice, is_chosen: bool, keep_group_size: bool = True
) -> Generator[Progress, None, tuple[Checkpoint, Plan, list[Held]]]:
    """Yield while ``source`` is opened; return it, its plan, and what every target makes of that.

    A folder that was compressed has its plan: SchemeError where ``is_chosen`` says that another one is asked for.
    Raises ModelError, HubError, CheckpointError or SchemeError.
    """
    folder = typed_path(source)
    if is_compressed(folder):
        if is_chosen:
            raise SchemeError("export_chosen", folder=source[:80])
        model = opened(folder)
        checkpoint, plan = model.checkpoint, model.plan
    else:
        checkpoint, plan = yield from estimate(source, choice, keep_group_size=keep_group_size)
    known = survey_file.recall(checkpoint).sensitivities(checkpoint.layers) if checkpoint.layers else None

    def planned(other: Choice) -> Plan:
        return make_plan(checkpoint.layers, other, known if other.sensitivity == "nncf" else None)

    return checkpoint, plan, every_target(plan, checkpoint, planned)

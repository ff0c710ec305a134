"""What an export target is: a form that a compressed model can take for another program. Knows none of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio.base.errors import UserError
from studio.checkpoint.carried import told
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.left_out import LeftOut
from studio.export.compressed_model import CompressedModel, Writing
from studio.planning.plan import Plan
from studio.planning.presets import IN_GROUPS, Words


@dataclass(frozen=True)
class Target:
    """One form. Its words stand in the catalogues under ``target.<name>``."""

    name: str
    """What the terminal calls it."""
    suffix: str
    """Of the one file that it is, ``""`` where it is a folder."""
    refusal: Callable[[Plan, Checkpoint], UserError | None]
    """Why the target cannot hold this plan of this model, as an error that is returned; None where it can.

    Asked before anything is compressed: the model may be known by its headers only.
    """
    size: Callable[[Plan], int]
    """The exact bytes of the weights as the target stores them; a file's header and a folder's other files aside."""
    file_size: Callable[[CompressedModel], int]
    """The bytes of all that is written, to the last one."""
    write: Callable[[CompressedModel, Path], Writing]
    """Writes the target to a new path, yielding the bytes done at least twice a second; tensors pass one at a time.

    Whole or not at all is not its care: the path is a hidden one, removed when anything is raised.
    """

    usual: Mapping[str, str] = field(default_factory=dict)
    """Words of a choice that a model is compressed by for this target, where nobody says otherwise."""
    needs: Mapping[str, bool] = field(default_factory=dict)
    """Words of a choice that hold wherever nobody says otherwise: without them some of its programs refuse the file."""
    presets: Mapping[str, Words] = field(default_factory=lambda: IN_GROUPS)
    """What the page's presets are for this target: plans that it holds as they are."""

    cautions: Callable[[Plan], Sequence[UserError]] = lambda _: ()
    """What some of its programs will not load of a plan that others do: said in the terminal and on the card."""

    carries: Callable[[CompressedModel], Collection[str]] = lambda _: ()
    """Which of the tensors beside the model it holds as they came."""

    with_pre_tokenizer: Callable[[str], "Target"] | None = None
    """Returns the target that names a way of splitting words which is not the tokenizer's; None where none is named."""
    pre_tokenizer: str = ""
    """The name that it was given so."""

    def leaves_out(self, model: CompressedModel) -> LeftOut | None:
        """Return what the compressed folder has beside the model and this target has not; None where it has all."""
        there = self.carries(model)
        return told({name: entry for name, entry in model.left_out.items() if name not in there})

    @property
    def keys(self) -> set[str]:
        """The catalogue's keys of its sentences: what it is called, and who loads it."""
        return {f"target.{self.name}.{key}" for key in ("title", "loads")}

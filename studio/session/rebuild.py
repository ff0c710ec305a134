"""A recipe carried out once more: the same files to the bit where machine and programs are the same. Knows no terminal.

Nothing is chosen or ranked anew: the plan is the recipe's, layer by layer. What the recipe was made from is compared by
checksum before the work, what comes of it afterwards.
"""

import re
from collections.abc import Generator
from pathlib import Path

import torch
from torch import Tensor

from studio.base.errors import CheckpointError, ModelError, TextError
from studio.base.progress import Progress
from studio.calibration.dataset import is_dataset
from studio.calibration.texts import BUILTIN, GENERATED, digest, words
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import PACKED, WEIGHTS
from studio.checkpoint.open_model import BUILTIN as BUILTIN_MODEL
from studio.checkpoint.recipe import Recipe, read_recipe
from studio.checkpoint.source_digests import check_source, source_digests
from studio.compression.compress import Compressed
from studio.export.studio_folder import machine, versions
from studio.planning.recipe_plan import plan_of
from studio.quantization.methods import Method
from studio.session.session import Session

COMMIT = re.compile(r"[0-9a-f]{40}")


def source_name(recipe: Recipe) -> str | None:
    """Return what the recipe's model is opened by, None where that is a folder or file that only its owner can name."""
    source = recipe.source
    if source.model == BUILTIN_MODEL:
        return BUILTIN_MODEL
    return source.model if source.model == source.base_model else None


def commit_of(recipe: Recipe) -> str | None:
    """Return the Hub's commit of the recipe's model, None where it names none."""
    return recipe.source.revision if COMMIT.fullmatch(recipe.source.revision) else None


def opened_for(session: Session, recipe: Recipe, model: str | None) -> Generator[Progress, None, Checkpoint]:
    """Make the recipe's model the session's, with its files here, or ``model`` where they are the same; return it.

    Raises UserError where it has to be named, or is not the one that the recipe was made from.
    """
    name = model or source_name(recipe)
    if name is None:
        raise ModelError("recipe_needs_model", model=recipe.source.model[:80])
    yield from session.open(name, commit_of(recipe) if model is None else None)
    checkpoint = yield from session.fetch()
    if recipe.source.files:
        check_source(recipe.source, (yield from source_digests(checkpoint)))
    return checkpoint


def rebuilt(
    session: Session, recipe: Recipe, model: str | None = None, text: str | Path | None = None
) -> Generator[Progress, None, Compressed]:
    """Compress as the recipe says; the session's copy is then the folder.

    ``model``: the original, where the recipe names a folder or file; ``text``: what was read, where it names a file.
    Raises UserError where one of them is missing or another one than the recipe's.
    """
    checkpoint = yield from opened_for(session, recipe, model)
    plan = plan_of(recipe, checkpoint.layers)
    tokens = yield from _tokens(session, recipe, checkpoint, text, plan.choice.method)
    return (yield from session.remake(recipe, plan, tokens))


def differences(recipe: Recipe, folder: Path) -> list[str]:
    """Return the files of a rebuilt folder that are not those of the recipe, by name."""
    made = read_recipe(folder).sha256
    if recipe.format_version == 1:  # whose folders had another config, and the weights another name
        return [PACKED] if made[PACKED] != recipe.sha256.get(WEIGHTS) else []
    return [name for name, sha in recipe.sha256.items() if made.get(name) != sha]


def reasons(recipe: Recipe, threads: int) -> list[str]:
    """Return what is another here than where the recipe was made: versions, and what sums depend on."""
    here = versions()
    found = [f"{name} {version} → {here.get(name, '–')}" for name, version in recipe.versions.items()]
    found = [
        each for each, (name, version) in zip(found, recipe.versions.items(), strict=True) if here.get(name) != version
    ]
    now = machine(threads)
    if recipe.machine is not None and recipe.machine != now:
        found.append(f"{recipe.machine} → {now}")
    return found


def _tokens(
    session: Session, recipe: Recipe, checkpoint: Checkpoint, text: str | Path | None, method: Method
) -> Generator[Progress, None, Tensor | None]:
    """Return the windows that the recipe's method read, int64 [W, T], None where it read none."""
    made = recipe.choices.calibration
    if made is None:
        return None
    if made.text == GENERATED.name and made.tokens and text is None:
        tokens = _kept(made.tokens, checkpoint)
    else:
        if text is None and made.text not in (BUILTIN, GENERATED.name) and not is_dataset(made.text):
            raise TextError("recipe_needs_text", text=made.text[:80])
        given = made.text if text is None else text
        session.texts.calibrate_on(None if given == BUILTIN else given)
        tokens = yield from session.calibration_windows(checkpoint, method)
    if made.digest and digest(tokens) != made.digest:
        raise TextError("recipe_other_text", text=made.text[:80])
    return tokens


def _kept(rows: tuple[tuple[int, ...], ...], checkpoint: Checkpoint) -> Tensor:
    """Return tokens that a recipe holds. Raises CheckpointError for what no text of this model is."""
    known = words(checkpoint)
    if len({len(row) for row in rows}) != 1 or not rows[0] or any(token >= known for row in rows for token in row):
        raise CheckpointError("recipe_other_model", tensor="tokens")
    return torch.tensor(rows, dtype=torch.int64)

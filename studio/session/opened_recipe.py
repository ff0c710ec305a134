"""A recipe that a visitor opens: the model and the choices that it tells become the session's. Knows no page.

Whoever wrote the recipe is a stranger: its model is opened as if its name had been typed, its words are read as if they
had been chosen.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.calibration.dataset import is_dataset
from studio.calibration.texts import BUILTIN, GENERATED
from studio.checkpoint.recipe import Recipe, recipe_of
from studio.planning.recipe_plan import choice_of
from studio.session.rebuild import commit_of, source_name
from studio.session.session import Session


@dataclass(frozen=True)
class OpenedRecipe:
    """What was opened."""

    recipe: Recipe
    text: str
    """The name of a text that the visitor has to give, for the recipe does not hold it; empty where there is none."""


def open_recipe(session: Session, file: Path) -> Generator[Progress, None, OpenedRecipe]:
    """Yield steps and return a recipe whose model and choices are the session's now.

    A recipe of a folder or file, which nobody else can open by its name, sets the choices for the model that is open.
    Raises CheckpointError for what is no recipe, SchemeError for choices that this model cannot take, ModelError or
    HubError; the choice before it then stays.
    """
    recipe = recipe_of(file)
    choice = choice_of(recipe)
    name = source_name(recipe)
    if name is not None:
        yield from session.open(name, commit_of(recipe))
    elif session.checkpoint is None:
        raise ModelError("recipe_needs_model", model=recipe.source.model[:80])
    session.planner.choose(choice)
    made = recipe.choices.calibration
    if made is None:
        return OpenedRecipe(recipe, "")
    if made.text in (BUILTIN, GENERATED.name):
        session.texts.calibrate_on(None if made.text == BUILTIN else GENERATED.name)
        return OpenedRecipe(recipe, "")
    if is_dataset(made.text):
        session.texts.calibrate_on(made.text)
        return OpenedRecipe(recipe, "")
    return OpenedRecipe(recipe, made.text)

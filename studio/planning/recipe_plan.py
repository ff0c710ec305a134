"""What a recipe chose, and the plan that it carried out, to the layer: nothing is ranked anew. Knows no files."""

from collections.abc import Sequence

from studio.base.errors import CheckpointError
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.recipe import Recipe
from studio.planning.choice import OPTIONS, Choice
from studio.planning.plan import Assignment, Plan
from studio.quantization.scheme import GROUP_SIZES, Scheme


def choice_of(recipe: Recipe) -> Choice:
    """Return what was chosen. Raises SchemeError for words that this version does not know."""
    made = recipe.choices
    words = {name: getattr(made, name) for name in OPTIONS}
    if made.group_size not in GROUP_SIZES:  # a mode's own, which is not chosen
        words["group_size"] = None
    return Choice.of(**words)


def plan_of(recipe: Recipe, layers: Sequence[Layer]) -> Plan:
    """Return the plan that a recipe was written of, for the model of ``layers``.

    Raises CheckpointError where the recipe speaks of weights that the model does not have, SchemeError.
    """
    schemes = {weight.name: Scheme.parse(weight.scheme) for weight in recipe.weights}
    shapes = {weight.name: weight.shape for weight in recipe.weights}
    held = {layer.name: layer for layer in layers if layer.kind is not Kind.OTHER}
    for name, shape in shapes.items():
        if name not in held or held[name].matrix != shape:
            raise CheckpointError("recipe_other_model", tensor=name[:120])
    assignments = tuple([Assignment(layer, schemes.get(layer.name)) for layer in layers])
    return Plan(choice_of(recipe), assignments, is_exact=True)

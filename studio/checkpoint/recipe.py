"""``recipe.json``: everything needed to make a compressed folder again, and to read it. Checked as untrusted input.

Knows of names, schemes and checksums; not of how a file is written or a model is built.
"""

import hashlib
import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from studio.base.errors import CheckpointError, SchemeError
from studio.base.typed_paths import is_there
from studio.checkpoint.file_names import MANIFEST, PACKED, WEIGHTS
from studio.checkpoint.file_names import RECIPE as RECIPE
from studio.checkpoint.headers import read_header
from studio.checkpoint.json_file import read_json
from studio.checkpoint.recipe_fields import Calibration as Calibration
from studio.checkpoint.recipe_fields import Choices as Choices
from studio.checkpoint.recipe_fields import Exported as Exported
from studio.checkpoint.recipe_fields import Machine as Machine
from studio.checkpoint.recipe_fields import PackedWeight as PackedWeight
from studio.checkpoint.recipe_fields import Size
from studio.checkpoint.recipe_fields import Source as Source
from studio.checkpoint.weight_files import listed
from studio.quantization.scheme import Part, Scheme, parse_mode

MAX_RECIPE_VALUES = 1_000_000
VERSIONS = (1, 2, 3)


class Recipe(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["quantization-studio"] = "quantization-studio"
    format_version: Literal[1, 2, 3] = 3
    """1: the weights are in ``model.safetensors``. 2: under a name of the studio's own. 3: with the checksums of what
    was read, the machine, and the files that were exported."""
    source: Source
    choices: Choices
    weights: tuple[PackedWeight, ...]
    original_bytes: Size
    compressed_bytes: Size
    versions: dict[str, str]
    sha256: dict[str, str]
    """Checksum of every other file of the folder but the card."""
    machine: Machine | None = None
    """Where it was made; None in older recipes."""
    exports: tuple[Exported, ...] = ()
    """What was written of the folder for other programs, where the recipe stands beside that; else nothing."""

    @field_validator("format_version", mode="before")
    @classmethod
    def _is_known(cls, version: object) -> object:
        if version not in VERSIONS:
            raise CheckpointError("unknown_version", file=RECIPE)
        return version

    @property
    def weights_file(self) -> str:
        """The name of the file with the weights."""
        return WEIGHTS if self.format_version == 1 else PACKED

    @property
    def name(self) -> str:
        """What files made by it are called, without a suffix: the model and the mix or scheme."""
        made = self.choices
        words = made.mix.upper() if made.mix != "none" else str(Scheme.of(parse_mode(made.mode), made.group_size))
        return f"{file_name(self.source.title)}-{words}"


def file_name(title: str) -> str:
    """Return a model's title as a part of a file's name."""
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in title)[:80].strip(".-")
    return safe.encode("utf-8", "replace").decode()[:80] or "model"


def read_recipe(folder: Path) -> Recipe:
    """Return a compressed folder's recipe, checked against the header of its weights.

    Raises CheckpointError when it is missing, not a recipe, of a version to come, or promises arrays that the file does
    not hold.
    """
    recipe = recipe_of(folder / RECIPE)
    parts = [(weight, _parts(weight)) for weight in recipe.weights]
    if not (folder / recipe.weights_file).is_file():
        raise CheckpointError("missing_file", file=recipe.weights_file)
    entries = read_header(folder / recipe.weights_file)
    packed: set[str] = set()
    for weight, arrays in parts:
        for part in arrays:
            name = f"{weight.name}.{part.name}"
            entry = entries.get(name)
            if entry is None or name in packed or (entry.dtype, entry.shape) != (part.dtype, part.shape):
                raise CheckpointError("recipe_mismatch", tensor=weight.name[:120])
            packed.add(name)
    return recipe


def recipe_of(file: Path) -> Recipe:
    """Return what a recipe says, whatever stands beside it.

    Raises CheckpointError when it is missing, not a recipe, or of a version to come.
    """
    try:
        recipe = Recipe.model_validate(read_json(file, MAX_RECIPE_VALUES))
        for weight in recipe.weights:
            _parts(weight)
        parse_mode(recipe.choices.mode)
    except ValidationError as error:
        raise _bad_value(error) from error
    except SchemeError as error:
        key, value = "choices.mode", recipe.choices.mode[:60]
        raise CheckpointError("bad_recipe", file=RECIPE, key=key, value=value, reason=str(error)[:120]) from error
    return recipe


def _bad_value(error: ValidationError) -> CheckpointError:
    """Return the sentence for the first value that is not as a recipe has it."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    value = str(fault["input"])[:60] if isinstance(fault["input"], str | int | float) else type(fault["input"]).__name__
    return CheckpointError("bad_recipe", file=RECIPE, key=key[:120], value=value, reason=fault["msg"][:120])


def _parts(weight: PackedWeight) -> tuple[Part, ...]:
    try:
        return weight.parts
    except (ValueError, SchemeError) as error:
        key = f"{weight.name[:120]}: scheme"
        raise CheckpointError(
            "bad_recipe", file=RECIPE, key=key, value=weight.scheme[:60], reason=str(error)[:120]
        ) from error


def check_sizes(recipe: Recipe, folder: Path) -> None:
    """Raise CheckpointError where a recipe's sizes are not those of the file, for whom they tell what a model needs."""
    entries = read_header(folder / recipe.weights_file)
    packed = {f"{weight.name}.{part.name}" for weight in recipe.weights for part in weight.parts}
    kept = sum(entry.numel for name, entry in entries.items() if name not in packed)
    sizes = {
        "compressed_bytes": (recipe.compressed_bytes, sum(entry.nbytes for entry in entries.values())),
        "original_bytes": (recipe.original_bytes, 2 * (kept + sum(math.prod(each.shape) for each in recipe.weights))),
    }
    for key, (said, found) in sizes.items():
        if said != found:
            raise CheckpointError("recipe_sizes", file=RECIPE, key=key, value=said, found=found)


def check_files(recipe: Recipe, folder: Path) -> None:
    """Raise CheckpointError when a file of the folder is missing or not the one the recipe was written for."""
    if recipe.weights_file not in recipe.sha256:
        raise CheckpointError("bad_recipe", file=RECIPE, key="sha256", value="?", reason=recipe.weights_file)
    names = listed(folder)
    for name, checksum in recipe.sha256.items():
        if name not in names:
            raise CheckpointError("missing_file", file=name[:80])
        if sha256(folder / name) != checksum:
            raise CheckpointError("damaged_file", file=name[:80])


def is_compressed(folder: Path) -> bool:
    """Return whether a folder is one the studio compressed a model into.

    One with files for other programs has a recipe, too, and a manifest of them.
    """
    return is_there(folder / RECIPE) and (folder / RECIPE).is_file() and not (folder / MANIFEST).is_file()


def sha256(file: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

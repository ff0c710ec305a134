"""``recipe.json``: everything needed to make a compressed folder again, and to read it. Checked as untrusted input.

Knows of names, schemes and checksums; not of how a file is written or a model is built.
"""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.base.errors import CheckpointError, SchemeError
from studio.base.typed_paths import is_there
from studio.checkpoint.file_names import PACKED, WEIGHTS
from studio.checkpoint.file_names import RECIPE as RECIPE
from studio.checkpoint.headers import read_header
from studio.checkpoint.json_file import read_json
from studio.checkpoint.license import UNKNOWN, License
from studio.checkpoint.weight_files import listed
from studio.quantization.scheme import Part, Scheme

MAX_RECIPE_VALUES = 1_000_000
Name = Annotated[str, Field(min_length=1, max_length=400)]
Number = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1, le=1 << 40)]


class Source(BaseModel):
    """Where the weights came from."""

    model: str
    """``builtin``, a Hub id, or the name of a folder or file; not its path, which is nobody else's business."""
    revision: str
    format: str
    base_model: str = ""
    """The original's id on the Hub, where it has one."""
    license: License = UNKNOWN

    @property
    def title(self) -> str:
        """What to call the model."""
        return (self.base_model or self.model).rpartition("/")[2]


class Choices(BaseModel):
    """What the user set, in NNCF's words."""

    model_config = ConfigDict(populate_by_name=True)

    mode: str
    group_size: int
    ratio: Number
    backup: str
    group_size_fallback: str = Field("error", validation_alias=AliasChoices("group_size_fallback", "misfit"))
    """Called ``misfit`` in older recipes; both are read."""
    all_layers: bool = False
    pins: tuple[str, ...] = ()
    method: str = "nearest"
    sensitivity: str = "nncf"
    mix: str = "none"
    calibration: str = ""
    """The text that a calibrated method read: its name, how many tokens, a digest of them."""


class PackedWeight(BaseModel):
    """One compressed weight: the parameter's name, its [N, K], its scheme, and the parameters tied to it."""

    name: Name
    shape: tuple[Size, Size]
    scheme: str
    transposed: bool = False
    tied: tuple[Name, ...] = ()
    relative_error: Number

    @property
    def parts(self) -> tuple[Part, ...]:
        """The arrays that hold it. Raises SchemeError for a scheme that is none."""
        return Scheme.parse(self.scheme).parts(self.shape)


class Recipe(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["quantization-studio"] = "quantization-studio"
    format_version: Literal[1, 2] = 2
    """1: the weights are in ``model.safetensors``. 2: under a name of the studio's own."""
    source: Source
    choices: Choices
    weights: tuple[PackedWeight, ...]
    original_bytes: Size
    compressed_bytes: Size
    versions: dict[str, str]
    sha256: dict[str, str]
    """Checksum of every other file of the folder but the card."""

    @field_validator("format_version", mode="before")
    @classmethod
    def _is_known(cls, version: object) -> object:
        if version not in (1, 2):
            raise CheckpointError("unknown_version", file=RECIPE)
        return version

    @property
    def weights_file(self) -> str:
        """The name of the file with the weights."""
        return WEIGHTS if self.format_version == 1 else PACKED


def read_recipe(folder: Path) -> Recipe:
    """Return a compressed folder's recipe, checked against the header of its weights.

    Raises CheckpointError when it is missing, not a recipe, of a version to come, or promises arrays that the file does
    not hold.
    """
    try:
        recipe = Recipe.model_validate(read_json(folder / RECIPE, MAX_RECIPE_VALUES))
    except ValidationError as error:
        raise _bad_value(error) from error
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
    """Return whether a folder is one the studio exported."""
    return is_there(folder / RECIPE) and (folder / RECIPE).is_file()


def sha256(file: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

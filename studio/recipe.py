"""``recipe.json``: everything needed to make a compressed folder again, and to read it. Checked as untrusted input.

Knows of names, schemes and checksums; not of how a file is written or a model is built.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import CheckpointError, SchemeError
from studio.headers import read_header
from studio.license import UNKNOWN, License
from studio.model_files import PACKED, WEIGHTS
from studio.scheme import Part, Scheme

RECIPE = "recipe.json"
MAX_RECIPE_BYTES = 50_000_000
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

    mode: str
    group_size: int
    ratio: float
    backup: str
    misfit: str = "error"
    all_layers: bool = False
    pins: tuple[str, ...] = ()
    method: str = "nearest"
    sensitivity: str = "nncf"
    calibration: str = ""
    """The text that a calibrated method read: its name, how many tokens, a digest of them."""


class PackedWeight(BaseModel):
    """One compressed weight: the parameter's name, its [N, K], its scheme, and the parameters tied to it."""

    name: str
    shape: tuple[Size, Size]
    scheme: str
    transposed: bool = False
    tied: tuple[str, ...] = ()
    relative_error: float

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
    original_bytes: int
    compressed_bytes: int
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
    file = folder / RECIPE
    if not file.is_file():
        raise CheckpointError("missing_file", file=RECIPE)
    try:
        if file.stat().st_size > MAX_RECIPE_BYTES:
            raise ValueError("too large")
        recipe = Recipe.model_validate_json(file.read_bytes())
        parts = [(weight.name, weight.parts) for weight in recipe.weights]
    except (ValidationError, ValueError, SchemeError) as error:
        raise CheckpointError("damaged_file", file=RECIPE) from error
    if not (folder / recipe.weights_file).is_file():
        raise CheckpointError("missing_file", file=recipe.weights_file)
    entries = read_header(folder / recipe.weights_file)
    for name, arrays in parts:
        for part in arrays:
            entry = entries.get(f"{name}.{part.name}")
            if entry is None or (entry.dtype, entry.shape) != (part.dtype, part.shape):
                raise CheckpointError("tensor_mismatch", tensor=name[:120])
    return recipe


def check_files(recipe: Recipe, folder: Path) -> None:
    """Raise CheckpointError when a file of the folder is missing or not the one the recipe was written for."""
    for name, checksum in recipe.sha256.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError("missing_file", file=name[:80])
        if sha256(folder / name) != checksum:
            raise CheckpointError("damaged_file", file=name[:80])
    if recipe.weights_file not in recipe.sha256:
        raise CheckpointError("damaged_file", file=RECIPE)


def is_compressed(folder: Path) -> bool:
    """Return whether a folder is one the studio exported."""
    return (folder / RECIPE).is_file()


def sha256(file: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""What a recipe says: where weights came from, what was chosen, what was read, where it was made, what became of it.

Each is a part of ``recipe.json`` (:mod:`studio.checkpoint.recipe`; ``docs/recipe.md`` describes them all), checked as
untrusted input. Knows no files.
"""

import re
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from studio.checkpoint.card_facts import LANGUAGE, MAX_LANGUAGES
from studio.checkpoint.license import UNKNOWN, License
from studio.quantization.scheme import Part, Scheme

Name = Annotated[str, Field(min_length=1, max_length=400)]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]{1,255}$")]
"""Of a file in a folder: no path."""
Number = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1, le=1 << 40)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Language = Annotated[str, Field(pattern=f"^(?:{LANGUAGE.pattern})$", max_length=40)]
Token = Annotated[int, Field(ge=0, lt=1 << 32)]
MAX_WINDOWS = 1 << 16
WORDS = re.compile(r"(?P<text>.*): (?P<windows>\d{1,5}) x (?P<window>\d{1,5}) tokens, (?P<digest>[0-9a-f]{32})", re.S)
"""How the versions before the third told of a calibration."""


class Source(BaseModel):
    """Where the weights came from."""

    model: str
    """``builtin``, a Hub id, or the name of a folder or file; not its path, which is nobody else's business."""
    revision: str
    format: str
    base_model: str = ""
    """The original's id on the Hub, where it has one."""
    license: License = UNKNOWN
    languages: Annotated[tuple[Language, ...], Field(max_length=MAX_LANGUAGES)] = ()
    """What its card says that it writes."""
    files: dict[FileName, Sha256] = {}
    """Checksums of the files that were read, by name: weights, config, tokenizer; of a GGUF model its own files. Empty
    in recipes before the third version."""

    @property
    def title(self) -> str:
        """What to call the model."""
        return (self.base_model or self.model).rpartition("/")[2]


class Calibration(BaseModel):
    """What a calibrated method read."""

    text: str
    """``builtin``, ``generated``, ``hf://datasets/…``, or the name of a file."""
    windows: Annotated[int, Field(ge=0, le=MAX_WINDOWS)] = 0
    window: Annotated[int, Field(ge=0, le=MAX_WINDOWS)] = 0
    """Tokens in each."""
    digest: str = ""
    """Of all tokens: another text, or another tokenizer, has another one."""
    tokens: tuple[tuple[Token, ...], ...] = ()
    """The tokens themselves where nobody else could come by them: of what the model wrote itself, drawn from seed 0."""

    def __str__(self) -> str:
        if not self.digest:
            return self.text
        return f"{self.text}: {self.windows} x {self.window} tokens, {self.digest}"

    @classmethod
    def told(cls, words: str) -> "Calibration":
        """Return what the words of an older recipe say."""
        told = WORDS.fullmatch(words)
        return cls(text=words) if told is None else cls.model_validate(told.groupdict())


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
    share_fused: bool = False
    pins: tuple[str, ...] = ()
    method: str = "nearest"
    sensitivity: str = "nncf"
    mix: str = "none"
    budget: str = "none"
    target: str = "studio"
    calibration: Calibration | None = None
    """The text that a calibrated method read; one string in older recipes."""

    @field_validator("calibration", mode="before")
    @classmethod
    def _was_words(cls, value: Any) -> Any:
        if isinstance(value, str):
            return Calibration.told(value) if value else None
        return value


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


class Machine(BaseModel):
    """What the last bits of sums depend on: a calibrated method rounds by them, one that reads no text does not."""

    device: str
    """``cpu``, or the name of the GPU."""
    processor: str
    """The instructions that torch computes with: ``AVX2``, ``AVX512``."""
    threads: Annotated[int, Field(ge=1, le=4096)]
    native: bool
    """Whether the studio's compiled twins computed."""

    def __str__(self) -> str:
        return f"{self.device}, {self.processor}, {self.threads}, {'native' if self.native else 'torch'}"


class Exported(BaseModel):
    """A file that was written of the compressed folder."""

    file: Annotated[str, Field(pattern=r"^[\w(][\w .,()+@=-]*$", max_length=250)]
    """Its name, of which a card can make a command."""
    target: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")]
    nbytes: Size
    sha256: Sha256
    pre_tokenizer: Annotated[str, Field(pattern=r"^[\w.-]*$", max_length=80)] = ""
    """The way of splitting words that the file names because somebody chose it."""

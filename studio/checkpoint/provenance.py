"""What a model's files say of it and of how it came, from headers alone. Knows no torch, and builds no model.

``python -m studio inspect`` prints it. What a stranger wrote into a file is cut and made printable before it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.base.errors import ModelError
from studio.base.settings import settings
from studio.base.typed_paths import is_there, typed_path
from studio.checkpoint import stored_as
from studio.checkpoint.checkpoint import bytes_in, read_json
from studio.checkpoint.file_names import CARD, CONFIG, RECIPE
from studio.checkpoint.gguf.header import shown
from studio.checkpoint.gguf.model import GgufModel, read_gguf_model
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.license import UNKNOWN, License, of_card
from studio.checkpoint.open_model import BUILTIN, BUILTIN_INSTALL, BUILTIN_LICENSE, builtin_file
from studio.checkpoint.packed import mlx
from studio.checkpoint.packed.formats import quantization_of, with_packed
from studio.checkpoint.recipe import is_compressed, read_recipe
from studio.checkpoint.stored_as import OfType, StoredAs
from studio.checkpoint.weight_files import joined, listed, no_weights, weight_files

GGUF, SAFETENSORS, STUDIO = "GGUF", "safetensors", "quantization-studio"
TOKENIZER_CONFIG, SENTENCE_PIECE = "tokenizer_config.json", "tokenizer.model"
RECIPES = ("recipe.yaml", "quantize_config.json")
"""What llm-compressor and AutoGPTQ leave beside the weights."""


@dataclass(frozen=True)
class Provenance:
    """A model as its headers have it; what nobody said is empty."""

    name: str
    container: str
    """``"GGUF"``, ``"safetensors"``, or the studio's own folder, ``"quantization-studio"``."""
    architecture: str
    tensors: tuple[StoredAs, ...]
    """All of them, in the order of the files."""
    nbytes: int
    """Of the tensors."""
    tokenizer: str = ""
    """Its kind: ``"gpt2 (smollm)"``, ``"PreTrainedTokenizerFast"``."""
    license: License = UNKNOWN
    quantized_by: str = ""
    """``"Q4_K_M, llama.cpp"``, ``"gptq (gptqmodel:2.1.0)"``."""
    recipe: str = ""
    """Where the choice of schemes came from: an importance matrix, a recipe's file, the studio's own choices."""
    source: str = ""
    """What it was made from, where it says so."""
    revision: str = ""

    @property
    def weights(self) -> int:
        return sum(tensor.numel for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits per weight, everything included."""
        return 8 * self.nbytes / max(1, self.weights)

    @cached_property
    def types(self) -> list[OfType]:
        """The tensors by type, that of most bytes first."""
        return stored_as.by_type(self.tensors)


def provenance(name: str) -> Provenance:
    """Return what is said of ``builtin``, a .gguf file, a folder, or a repository of the Hub.

    Reads headers, configs and cards, no weight. Raises ModelError, HubError or CheckpointError.
    """
    name = name.strip()
    if name == BUILTIN:
        file = builtin_file()
        if file is None:
            raise ModelError("builtin_missing", command=BUILTIN_INSTALL)
        return of_gguf(read_gguf_model(file), BUILTIN, BUILTIN_LICENSE)
    if name and is_there(path := typed_path(name)):
        if path.is_file() and path.suffix == ".gguf":
            return of_gguf(read_gguf_model(path), str(path))
        if not path.is_dir():
            raise ModelError("not_a_model", model=path.name)
        return of_studio(path) if is_compressed(path) else of_folder(path)
    return _of_hub(name)


def of_gguf(model: GgufModel, name: str, license: License = UNKNOWN) -> Provenance:
    """Return what a GGUF file's metadata say; of one in parts, the first's."""
    said = model.metadata

    def words(key: str) -> str:
        value = said.get(key)
        return shown(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else ""

    tokenizer, split_as = words("tokenizer.ggml.model"), words("tokenizer.ggml.pre")
    imatrix = words("quantize.imatrix.file").replace("\\", "/").rpartition("/")[2]
    text = words("quantize.imatrix.dataset").replace("\\", "/").rpartition("/")[2]
    source = words("general.base_model.0.repo_url") or words("general.base_model.0.name") or words("general.name")
    own = License.of(model.card)
    return Provenance(
        name=name,
        container=GGUF,
        architecture=model.architecture,
        tensors=tuple(StoredAs(each, t.type, t.shape, t.nbytes) for each, (_, t) in model.tensors.items()),
        nbytes=sum(tensor.nbytes for _, tensor in model.tensors.values()),
        tokenizer=f"{tokenizer} ({split_as})" if split_as else tokenizer,
        license=own if own != UNKNOWN else license,
        quantized_by=", ".join(filter(None, (_mix(said.get("general.file_type")), words("general.quantized_by")))),
        recipe=f"imatrix {imatrix}{f', {text}' if text else ''}" if imatrix else "",
        source=source,
    )


def of_folder(folder: Path) -> Provenance:
    """Return what a folder with safetensors says."""
    names = listed(folder)

    def read(name: str) -> dict[str, Any]:
        return read_json(folder / name)

    files = weight_files(names, read)
    if not files:
        raise no_weights(folder.name, names, read)
    entries = joined(read_header(folder / file) for file in files)
    config = read(CONFIG)
    tokenizer = read(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in names else {}
    entries = dict(with_packed(config, entries, lambda entry: bytes_in(folder, entry), True))
    return replace(_of_safetensors(str(folder), config, entries, names, tokenizer), license=of_card(folder / CARD))


def of_studio(folder: Path) -> Provenance:
    """Return what the recipe of a folder that the studio compressed says."""
    recipe = read_recipe(folder)
    entries = read_header(folder / recipe.weights_file)
    packed: dict[str, str] = {f"{each.name}.{part.name}": each.name for each in recipe.weights for part in each.parts}
    sizes = {
        each.name: StoredAs(each.name, each.scheme, each.shape, sum(part.nbytes for part in each.parts))
        for each in recipe.weights
    }
    tensors = [stored_as.of_entry(name, entries) for name in entries if name not in packed]
    made, source = recipe.choices, recipe.source
    choices = {"mode": made.mode, "group_size": made.group_size, "ratio": made.ratio, "method": made.method}
    choices |= {"mix": made.mix} if made.mix != "none" else {}
    names = listed(folder)
    return Provenance(
        name=str(folder),
        container=STUDIO,
        architecture=_word(read_json(folder / CONFIG).get("model_type")),
        tensors=(*sizes.values(), *tensors),
        nbytes=sum(entry.nbytes for entry in entries.values()),
        tokenizer=_tokenizer(names, read_json(folder / TOKENIZER_CONFIG) if TOKENIZER_CONFIG in names else {}),
        license=source.license,
        quantized_by=f"Quantization Studio {shown(recipe.versions.get('studio', ''))}".strip(),
        recipe=f"{RECIPE}: {', '.join(f'{key} {value}' for key, value in choices.items())}",
        source=shown(source.base_model or source.model),
        revision=shown(source.revision),
    )


def _of_hub(name: str) -> Provenance:
    from studio.checkpoint import hub
    from studio.checkpoint.hub_client import HubRanges, is_repo_id

    if not is_repo_id(name):
        raise ModelError("bad_model_name", model=name[:80])
    kept = hub.local_snapshot(name)
    if kept is not None and not hub.reachable() and (settings().is_private or not hub.is_somebodys(name)):
        return replace(of_folder(kept[1]), name=name, revision=kept[0])
    found = hub.inspect(name)
    ranges = HubRanges(found.repo, found.sha)

    def read(entry: TensorEntry) -> bytes:
        return ranges.read_bytes(entry.file, entry.start, entry.nbytes)

    entries = with_packed(found.config, found.entries, read, is_near=False)
    said = _of_safetensors(name, found.config, entries, list(found.files), {})
    return replace(said, license=found.license, revision=found.sha)


def _of_safetensors(
    name: str,
    config: Mapping[str, Any],
    entries: Mapping[str, TensorEntry],
    names: list[str],
    tokenizer: Mapping[str, Any],
) -> Provenance:
    tensors = stored_as.of_entries(entries)
    return Provenance(
        name=name,
        container=SAFETENSORS,
        architecture=_word(config.get("model_type")),
        tensors=tuple(tensors),
        nbytes=sum(tensor.nbytes for tensor in tensors),
        tokenizer=_tokenizer(names, tokenizer),
        quantized_by=_quantizer(quantization_of(config)),
        recipe=next((file for file in RECIPES if file in names), ""),
        source=_word(config.get("_name_or_path")) if not str(config.get("_name_or_path", "")).startswith("/") else "",
    )


def _quantizer(said: Any) -> str:
    """Return what a ``quantization_config`` says of who packed the weights."""
    if not isinstance(said, Mapping):
        return ""
    if mlx.is_mlx(said):
        return mlx.TITLE
    meta = said.get("meta")
    made_by = meta.get("quantizer") if isinstance(meta, Mapping) else said.get("version")
    made_by = made_by[0] if isinstance(made_by, list) and made_by else made_by
    return _word(said.get("quant_method")) + (f" ({_word(made_by)})" if _word(made_by) else "")


def _tokenizer(names: list[str], said: Mapping[str, Any]) -> str:
    return _word(said.get("tokenizer_class")) or ("SentencePiece" if SENTENCE_PIECE in names else "")


def _word(value: Any) -> str:
    return shown(value) if isinstance(value, str) else ""


def _mix(number: object) -> str:
    """Return llama.cpp's name of a mix by ``general.file_type``: ``"Q4_K_M"``."""
    from gguf import LlamaFileType

    try:
        return str(LlamaFileType(number).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return ""

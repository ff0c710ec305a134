"""What a model is made of, from its config and tensor names alone. Knows nothing of weights' values.

transformers builds the module tree on the meta device, so what counts as a linear weight, an embedding or a head is
the model's own code's word, not a guess from names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from studio.errors import CheckpointError, ModelError
from studio.headers import FLOATS, TensorEntry

IGNORED_KEYS = frozenset(
    {"attn_implementation", "attn_implementation_internal", "experts_implementation", "experts_implementation_internal"}
    | {"num_labels", "id2label", "label2id"}
)
"""What a config may not say: the first can name code on the Hub; labels, which no decoder has, can be millions."""


MAX_SIZE = 1 << 24
"""No width, vocabulary or number of positions is larger; tables for one that claims to be would fill the memory."""


class Kind(StrEnum):
    """The part a tensor plays."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"
    """Norms, biases: kept at 16 bits always."""


@dataclass(frozen=True)
class Layer:
    """One tensor of the model.

    ``Layer("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", Kind.LINEAR, (1536, 576))``.
    A weight's ``shape`` is always [N, K], output channels first, also where the file holds it ``transposed``.
    """

    name: str
    """The parameter's name in the model."""
    source: str
    """The tensor's name in the checkpoint."""
    kind: Kind
    shape: tuple[int, ...]
    transposed: bool = False
    tied: tuple[str, ...] = ()
    """Other parameters that are this same tensor: a tied head."""

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def original_bytes(self) -> int:
        """Bytes at 16 bits."""
        return 2 * self.numel

    @property
    def matrix(self) -> tuple[int, int]:
        """[N, K] of a weight."""
        rows, width = self.shape
        return rows, width

    @property
    def block(self) -> int | None:
        """The transformer block it sits in, None outside the blocks."""
        return next((int(part) for part in self.name.split(".") if part.isdecimal()), None)

    @property
    def projection(self) -> str:
        """What it is called within a block: ``"self_attn.q_proj"``; outside one, its module's name."""
        parts = self.name.removesuffix(".weight").split(".")
        numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
        return ".".join(parts[numbers[0] + 1 :]) if numbers else parts[-1]


def ratio_defining(layers: Sequence[Layer], all_layers: bool = False) -> list[Layer]:
    """Return the weights the ratio speaks of: linear ones, without the head (a tied head goes with its embedding).

    With ``all_layers``, as NNCF names it, head and embeddings join them, after the others.
    """
    linear = [layer for layer in layers if layer.kind is Kind.LINEAR]
    if not all_layers:
        return linear
    return linear + [layer for kind in (Kind.HEAD, Kind.EMBEDDING) for layer in layers if layer.kind is kind]


def load_config(config: Mapping[str, Any]) -> Any:
    """Return transformers' config object for a ``config.json``, without running anything of the repository's.

    Raises ModelError for an architecture that is not a decoder transformers knows by itself, or weights that are
    quantized already.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    kind = str(config.get("model_type", ""))
    is_encoder = kind in ENCODERS and not config.get("is_decoder")
    if kind not in DECODERS or is_encoder or config.get("is_encoder_decoder") or "vision_config" in config:
        reason = "needs_remote_code" if "auto_map" in config and kind not in CONFIG_MAPPING else "unknown_architecture"
        raise ModelError(reason, architecture=kind[:40] or "?")
    if "quantization_config" in config:
        raise ModelError("already_quantized")
    allowed = {key: value for key, value in config.items() if key.lstrip("_") not in IGNORED_KEYS}
    if any(type(value) is int and value > MAX_SIZE and "theta" not in key for key, value in allowed.items()):
        raise CheckpointError("damaged_file", file="config.json")
    try:
        return CONFIG_MAPPING[kind].from_dict(allowed)
    except Exception as error:  # whatever a hostile or broken config makes transformers raise
        raise CheckpointError("damaged_file", file="config.json") from error


def empty_model(config: Any) -> nn.Module:
    """Return the model with its parameters on the meta device and its buffers real.

    Raises CheckpointError when the config makes no model.
    """
    try:
        try:
            return _built(config, "sdpa")
        except ValueError:  # an architecture without torch's fused attention
            return _built(config, "eager")
    except Exception as error:  # impossible sizes and names raise whatever the model's own code does
        raise CheckpointError("damaged_file", file="config.json") from error


def _built(config: Any, attention: str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )
    return model.eval()


def layer_map(config: Any, entries: Mapping[str, TensorEntry]) -> tuple[Layer, ...]:
    """Return every tensor of the model, in the model's order, matched with the checkpoint's.

    Raises CheckpointError when a tensor is missing or of another shape than the config promises.
    """
    if (getattr(config, "num_hidden_layers", 0) or 0) > len(entries):
        raise CheckpointError("damaged_file", file="config.json")
    try:
        with torch.device("meta"):  # buffers too: a table of a billion positions costs nothing
            model = _built(config, "eager")
    except Exception as error:  # impossible sizes and names raise whatever the model's own code does
        raise CheckpointError("damaged_file", file="config.json") from error
    modules = dict(model.named_modules())
    tied = _tied(model)
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in tied:
            continue
        source = _source_name(name, entries, model.base_model_prefix)  # type: ignore[arg-type]
        entry = entries[source]
        if entry.shape != tuple(tensor.shape) or entry.dtype not in FLOATS:
            raise CheckpointError("tensor_mismatch", tensor=name)
        module = modules[name.rpartition(".")[0]]
        kind, transposed = _kind(module, name, tensor, head)
        shape = tuple(reversed(entry.shape)) if transposed else entry.shape
        twins = tuple(twin for twin, owner in tied.items() if owner == name)
        layers.append(Layer(name, source, kind, shape, transposed, twins))
    return tuple(layers)


def _tied(model: nn.Module) -> dict[str, str]:
    """Return the parameters that are another one's tensor -> that other."""
    keys: dict[str, str] = model.all_tied_weights_keys  # type: ignore[assignment]
    return dict(keys)


def _source_name(name: str, entries: Mapping[str, TensorEntry], prefix: str) -> str:
    """Return the checkpoint's name for a parameter: its own, or without the prefix of the model's inner part."""
    for candidate in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if candidate in entries:
            return candidate
    raise CheckpointError("tensor_missing", tensor=name)


def _kind(module: nn.Module, name: str, tensor: torch.Tensor, head: nn.Module | None) -> tuple[Kind, bool]:
    """Return a parameter's kind and whether it is stored [K, N]."""
    from transformers.pytorch_utils import Conv1D

    if not name.endswith(".weight") or tensor.ndim != 2:
        return Kind.OTHER, False
    if module is head:
        return Kind.HEAD, False
    if isinstance(module, nn.Embedding):
        return Kind.EMBEDDING, False
    if isinstance(module, Conv1D):
        return Kind.LINEAR, True
    return (Kind.LINEAR, False) if isinstance(module, nn.Linear) else (Kind.OTHER, False)

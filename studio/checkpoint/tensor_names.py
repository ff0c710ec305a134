"""Which tensors of a file make which parameter of a model: transformers' own renamings and fusions, applied to names.

Knows names only: a Mixtral repository holds a tensor for each expert, the model one for all of them, and the list of
those that make it is what comes out of here.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from studio.base.errors import ModelError
from studio.checkpoint.scale_names import BLOCKS

TEXT_PARTS = frozenset({"language_model", "text_model"})
"""What a model that also sees or hears calls its text part."""


def sources(model: Any, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return parameter -> the file's tensors that, stacked along their rows, make it; tensors of no use are left out.

    ``model`` is transformers' model, on any device. Raises ModelError where a parameter is made in another way.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    converter_of = {pattern: each for each in converters for pattern in each.source_patterns}
    parameters = model.state_dict(keep_vars=True)
    single: dict[str, str] = {}
    fused: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(names, key=dot_natural_key):
        for plain in dict.fromkeys((name, _of_text_part(name))):
            plain = plain.removesuffix(BLOCKS)
            target, pattern = rename_source_key(plain, renamings, converters, model.base_model_prefix, parameters)
            if target not in parameters:
                continue
            if plain in parameters or pattern is None:
                if target not in single or name == target:
                    single[target] = name
            else:
                fused[target][pattern].append(name)
            break
    kind = str(model.config.model_type)
    left = {target: parts for target, parts in fused.items() if target not in single}
    made = {target: _stacked(kind, target, parts, converter_of) for target, parts in left.items()}
    return {target: (name,) for target, name in single.items()} | made


def _of_text_part(name: str) -> str:
    """``language_model.model.layers.0.…`` and ``model.language_model.layers.0.…`` -> ``model.layers.0.…``."""
    return ".".join(part for part in name.split(".") if part not in TEXT_PARTS)


def _stacked(kind: str, target: str, parts: dict[str, list[str]], converter_of: dict[str, Any]) -> tuple[str, ...]:
    """Return the tensors of a fused parameter in the order of its rows: all of expert 0, all of expert 1, …"""
    converter = converter_of[next(iter(parts))]
    operations = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in converter.operations]
    columns = [parts.get(pattern, []) for pattern in converter.source_patterns]
    if operations == [("Concatenate", 0)]:
        return tuple(name for column in columns for name in column)
    if operations in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]):
        return tuple(name for expert in zip(*columns, strict=False) for name in expert)
    raise ModelError("made_otherwise", architecture=kind, tensor=target[:120])

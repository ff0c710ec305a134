"""What compiled code is given, as ``cpu/model.h`` lays it out in C. Knows neither weights nor models.

Two descriptions of one thing: :func:`is_same` compares sizes and places with the compiled ones before anything is read.
What is compiled at run time, for CUDA, is compiled with :func:`assertions` of the same.
"""

import ctypes
from collections.abc import Mapping

Int, Float, Pointer = ctypes.c_int32, ctypes.c_float, ctypes.c_void_p


class Weight(ctypes.Structure):
    """``Weight`` of ``weight.h``."""

    _fields_ = [
        *((name, Int) for name in ("kind", "rows", "width", "group", "span", "block", "wide_scale")),
        ("middle", Float),
        *((name, Pointer) for name in ("codes", "scale", "offset", "scale_factor", "offset_factor")),
        *((name, Pointer) for name in ("zero", "levels", "bias")),
    ]


class Layer(ctypes.Structure):
    """``Layer`` of ``model.h``."""

    _fields_ = [
        *((name, Pointer) for name in ("attention_norm", "mlp_norm", "attention_after", "mlp_after")),
        *((name, Pointer) for name in ("query_norm", "key_norm", "qkv", "output", "gate_up", "down")),
        *((name, Int) for name in ("qkv_count", "gate_up_count", "window", "rope_index")),
    ]


class Model(ctypes.Structure):
    """``Model`` of ``model.h``."""

    _fields_ = [
        *(
            (name, Int)
            for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate_size", "vocabulary")
        ),
        *((name, Int) for name in ("activation", "rotary")),
        *((name, Float) for name in ("epsilon", "embedding_scale", "attention_scale", "attention_cap", "logit_cap")),
        ("rotation_scale", Float * 2),
        ("frequencies", Pointer * 2),
        *((name, Pointer) for name in ("layer", "embedding", "head", "final_norm")),
    ]


class Cache(ctypes.Structure):
    """``Cache`` of ``attention.h``."""

    _fields_ = [
        *((name, Int) for name in ("bits", "capacity")),
        *((name, Pointer) for name in ("keys", "values", "key_grid", "value_grid")),
    ]


STRUCTURES: tuple[type[ctypes.Structure], ...] = (Weight, Layer, Model, Cache)
"""In the order of ``layout`` in ``model.h``."""


def layout() -> list[int]:
    """Return each structure's size and the places of its members in the order of their names, so that two of one size
    that changed places differ."""
    return [
        number
        for structure in STRUCTURES
        for names in (sorted(name for name, *_ in structure._fields_),)
        for number in (ctypes.sizeof(structure), *(getattr(structure, name).offset for name in names))
    ]


def is_same(lib: ctypes.CDLL) -> bool:
    """Return whether the compiled code means the same by these structures."""
    mine = layout()
    theirs = (Int * len(mine))()
    return bool(lib.layout(theirs, len(mine)) == len(mine)) and list(theirs) == mine


def assertions(structures: Mapping[str, type[ctypes.Structure]]) -> str:
    """Return lines for NVRTC that compile where its structures of these names have these sizes and places alone."""
    # __INTADDR__ is what stands behind offsetof in that compiler's own header, and the runtime compiler has no header.
    facts = [
        fact
        for name, structure in structures.items()
        for fact in (
            f"sizeof({name}) == {ctypes.sizeof(structure)}",
            *(
                f"__INTADDR__(&(({name} *)0)->{member}) == {getattr(structure, member).offset}"
                for member, *_ in structure._fields_
            ),
        )
    ]
    return "".join(f'static_assert({fact}, "laid out differently in Python");\n' for fact in facts)

"""Every format, registered: menus, options, checks, backups, what is surveyed and ``docs/formats.md`` follow.

Knows what a format is called and how it is stored, not how it rounds: that stands in ``rounding/``.
"""

from collections.abc import Callable
from typing import Any

from studio.quantization.ggml.layouts import LAYOUTS
from studio.quantization.mode import WHOLE_CHANNEL, Format, Mode
from studio.quantization.registry import later

__all__ = ["Mode"]


def _grid(module: str, name: str, *given: object) -> Callable[[], Any]:
    return later(f"studio.quantization.rounding.{module}", name, *given)


Mode.register("int8_sym", Format(
    8, _grid("integer", "symmetric", 8), (WHOLE_CHANNEL,), code_dtype="I8",
    rank=50, is_surveyed=True, is_mixable=False, is_backup=True,
))  # fmt: skip
Mode.register("int8_asym", Format(
    8, _grid("integer", "asymmetric", 8), (WHOLE_CHANNEL,), zero_point_bits=8,
    rank=40, is_surveyed=True, is_mixable=False, is_backup=True,
))  # fmt: skip
Mode.register("int4_sym", Format(4, _grid("integer", "symmetric", 4), rank=10, is_surveyed=True))
Mode.register("int4_asym", Format(
    4, _grid("integer", "asymmetric", 4), zero_point_bits=4, rank=0, is_surveyed=True
))  # fmt: skip
Mode.register("int3_sym", Format(3, _grid("integer", "symmetric", 3), rank=130))
Mode.register("int2_sym", Format(2, _grid("integer", "symmetric", 2), rank=140))
Mode.register("nf4", Format(4, _grid("levels", "NF4"), rank=20, is_surveyed=True))
Mode.register("fp4", Format(4, _grid("float4", "FP4"), rank=80, backup="fp8_e4m3"))
Mode.register("mxfp4", Format(
    4, _grid("float4", "MXFP4"), (32,), scale_dtype="F8_E8M0", rank=100, backup="mxfp8_e4m3"
))  # fmt: skip
Mode.register("nvfp4", Format(
    4, _grid("float4", "NVFP4"), (16,), scale_dtype="F8_E4M3", tensor_params=("global_scale", "F32", 1), rank=90
))  # fmt: skip
Mode.register("fp8_e4m3", Format(
    8, _grid("float8", "FP8"), code_dtype="F8_E4M3", rank=110, is_backup=True, backup="fp8_e4m3"
))  # fmt: skip
Mode.register("mxfp8_e4m3", Format(
    8, _grid("float8", "MXFP8"), (32,), code_dtype="F8_E4M3", scale_dtype="F8_E8M0",
    rank=120, is_backup=True, backup="mxfp8_e4m3",
))  # fmt: skip
Mode.register("cb4", Format(4, _grid("levels", "CB4"), rank=70))
# Ours: sixteen levels found for each tensor.
Mode.register("cb4_learned", Format(
    4, _grid("codebook", "LEARNED"), tensor_params=("codebook", "F16", 16), rank=60
))  # fmt: skip
# Ours: int4_sym's grid with twice the steps; in groups of 32 it is llama.cpp's Q5_0.
Mode.register("int5_sym", Format(5, _grid("integer", "symmetric", 5), rank=30))
# A float zero point, MLX's own layout.
for _bits, _rank in ((4, 5), (8, 45), (6, 150), (5, 151), (3, 152), (2, 153)):
    Mode.register(f"int{_bits}_affine", Format(
        _bits, _grid("affine", "affine", _bits), has_offset=True,
        rank=_rank, is_backup=_bits == 8, backup="int8_affine",
    ))  # fmt: skip


# llama.cpp's, each as its file holds it (``ggml/layouts.py``); they stand behind all others, in that file's order.
for _place, (_name, _layout) in enumerate(LAYOUTS.items()):
    Mode.register(_name, Format(
        _layout.bits, later("studio.quantization.ggml.formats", "grid", _name), (_layout.sub_block,),
        block=(_layout.block, _layout.block_bytes), misfit=_layout.misfit, scale_dtype="F32", rank=200 + _place,
        is_backup=_layout.is_backup, backup="q8_0",
    ))  # fmt: skip

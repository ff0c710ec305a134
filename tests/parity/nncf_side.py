"""What NNCF's public API makes of weights: ``nncf.compress_weights`` on an OpenVINO model, its constants read.

The words are the studio's (Scheme, QuantizedWeight), every number is NNCF's.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

os.environ["NNCF_CI"] = "1"  # NNCF reads it when imported: no telemetry
os.environ["CI"] = "true"  # OpenVINO's telemetry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nncf as nncf  # by this name tests take it from here, after all of the above
    import openvino
    from openvino import opset13 as opset

import numpy as np
import torch
from torch import Tensor

from studio.quantization.rounding import QuantizedWeight
from studio.quantization.scheme import Mode, Scheme

ov = openvino
MODES = tuple(mode for mode in Mode if mode.upper() in nncf.CompressWeightsMode.__members__)
"""Every format that NNCF has; the others are ours alone."""
INT8 = (Mode.INT8_SYM, Mode.INT8_ASYM)


def model(weights: Mapping[str, Tensor], embedding: tuple[str, Tensor] | None = None, tied: bool = False) -> Any:
    """Return an OpenVINO model: a MatMul for each of ``weights``, in this order, after an embedding's lookup.

    ``tied``: the embedding is the last MatMul's weight too. Each product feeds the next as one number, so that the
    order is one that NNCF must see.
    """
    hidden = {width: opset.parameter([1, width], np.float32) for width in {w.shape[1] for w in weights.values()}}
    inputs = list(hidden.values())
    so_far = opset.constant(0.0, ov.Type.f32)
    table = None
    if embedding is not None:
        table = _fp32(*embedding)
        inputs.append(opset.parameter([1, 2], np.int64, name="tokens"))
        rows = opset.gather(table, inputs[-1], opset.constant(0))
        so_far = opset.reduce_sum(rows, opset.constant([0, 1, 2]))
    for name, weight in weights.items():
        before = opset.add(hidden[weight.shape[1]], so_far)
        product = opset.matmul(before, _fp32(name, weight), False, True, name=f"{name}/matmul")
        so_far = opset.reduce_sum(product, opset.constant([0, 1]))
    result = opset.matmul(opset.add(rows, so_far), table, False, True, name="head") if tied else so_far
    return ov.Model([opset.result(result)], inputs, "weights")


def _fp32(name: str, weight: Tensor) -> Any:
    """A constant in the weight's own dtype, fp16 or fp32, that its user sees as fp32."""
    constant = opset.constant(weight.numpy(), name=name)
    return opset.convert(constant, ov.Type.f32) if weight.dtype == torch.float16 else constant


@contextmanager
def listening() -> Iterator[io.StringIO]:
    """Give what NNCF logs; its warnings, which are not ours, and its progress bars go nowhere."""
    said = io.StringIO()
    logger = logging.getLogger("nncf")
    handler, handlers, propagate = logging.StreamHandler(said), logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield said
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def compress(weights: Mapping[str, Tensor], scheme: Scheme) -> dict[str, QuantizedWeight]:
    """Return NNCF's codes and stored scales of each weight, every one of them in ``scheme``."""
    options: dict[str, Any] = {}
    if scheme.mode not in INT8:
        options = {"group_size": scheme.group_size, "ratio": 1.0, "all_layers": True}
    with listening():
        compressed = nncf.compress_weights(model(weights), mode=nncf.CompressWeightsMode(scheme.mode.value), **options)
    found = constants(compressed)
    return {name: _rounded(found, name, weight, scheme) for name, weight in weights.items()}


def constants(compressed: Any) -> dict[str, Any]:
    """Return the constants of a model by name."""
    return {op.get_friendly_name(): op for op in compressed.get_ops() if op.get_type_name() == "Constant"}


def codebook(compressed: Any, name: str) -> Tensor:
    """Return the levels of a codebook weight, which NNCF keeps under the weight's own name."""
    return torch.from_numpy(constants(compressed)[name].get_tensor_view().data.copy()).view(torch.float8_e4m3fn).float()


def _rounded(found: Mapping[str, Any], name: str, weight: Tensor, scheme: Scheme) -> QuantizedWeight:
    rows, width = weight.shape
    groups, mode = scheme.groups(width), scheme.mode
    codes = _codes(found[f"{name}_nncf_codebook_idxs" if mode is Mode.CB4 else name], rows * width)
    zero_point = None
    if mode.has_zero_point:
        zero_point = _codes(found[f"{name}/zero_point"], rows * groups).reshape(rows, groups)
    scale = _bytes(found[f"{name}/scale"]).view(_DTYPES[mode.stored_as.scale_dtype]).reshape(rows, groups)
    shared = None
    if mode is Mode.NVFP4:
        shared = _bytes(found[f"{name}/second_order_scale"]).view(torch.float32)
    return QuantizedWeight(codes.reshape(rows, width), scale, zero_point, shared)


_DTYPES = {"F16": torch.float16, "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu}


def _bytes(constant: Any) -> Tensor:
    return torch.from_numpy(constant.get_tensor_view().data.copy()).flatten().contiguous().view(torch.uint8)


def _codes(constant: Any, count: int) -> Tensor:
    """Return a constant's codes as the studio writes them: uint8, signed ones plus half the range."""
    packed, kind = _bytes(constant), constant.get_element_type().to_string()
    if kind in ("u8", "f8e4m3"):
        return packed
    if kind == "i8":
        return packed ^ 0x80
    if kind == "u3":
        return _unpack_u3(packed)[:count]
    bits = 2 if kind == "u2" else 4
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)  # low bits first
    codes = ((packed.unsqueeze(1) >> shifts) & (2**bits - 1)).flatten()[:count]
    signed: Tensor = codes ^ 8 if kind == "i4" else codes
    return signed


def _unpack_u3(packed: Tensor) -> Tensor:
    """OpenVINO's layout: the low two bits of eight codes in two bytes, their high bits in a third; first highest."""
    low, high, top = packed.reshape(-1, 3).unbind(1)
    pairs = torch.tensor([6, 4, 2, 0], dtype=torch.uint8)
    lows = torch.cat((low.unsqueeze(1) >> pairs, high.unsqueeze(1) >> pairs), 1) & 3
    tops = (top.unsqueeze(1) >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return (lows | (tops << 2)).flatten()

"""The one place where a tensor becomes an address that compiled code reads or writes. Knows no kernel.

Compiled code sees neither dtypes nor ends of arrays: what is wrong here would be a read or a write past them there.
"""

import torch
from torch import Tensor

CPU, CUDA = "cpu", "cuda"


def address(tensor: Tensor, dtype: torch.dtype, room: int, device: str = CPU) -> int:
    """Return where ``tensor`` lies: ``room`` contiguous numbers of ``dtype`` at least, on ``device``.

    Raises ValueError for any other tensor.
    """
    actual = tensor.dtype, tensor.device.type, tensor.is_contiguous()
    if actual != (dtype, device, True) or tensor.numel() < room or room < 0:
        said = f"{tensor.dtype}{list(tensor.shape)} on {tensor.device}{'' if actual[2] else ', with gaps'}"
        raise ValueError(f"compiled code needs {room} of {dtype} on {device}, not {said}")
    return tensor.data_ptr()


def optional(tensor: Tensor | None, dtype: torch.dtype, room: int, device: str = CPU) -> int | None:
    """Return where ``tensor`` lies, as :func:`address`, or None where there is none."""
    return None if tensor is None else address(tensor, dtype, room, device)


def rows_at(tensor: Tensor, start: int, stop: int, device: str = CPU) -> int:
    """Return where row ``start`` of a matrix lies whose rows are whole, but may be apart, and which has ``stop`` rows.

    Raises ValueError for any other tensor.
    """
    if tensor.ndim != 2 or tensor.device.type != device or not 0 <= start <= stop <= tensor.shape[0]:
        raise ValueError(f"compiled code needs rows {start}:{stop} on {device}, not those of {list(tensor.shape)}")
    if (tensor.shape[1] > 1 and tensor.stride(1) != 1) or tensor.stride(0) < 0:
        raise ValueError("compiled code needs whole rows")
    return tensor.data_ptr() + start * tensor.stride(0) * tensor.element_size()

"""Where each array of a compressed model lies in the file beside the graph. Knows no operator and no config."""

from collections.abc import Mapping

from torch import Tensor

from studio.checkpoint.layers import Kind
from studio.checkpoint.tensor_writer import DTYPE_NAMES, ConstantFile, Slot
from studio.export.compressed_model import CompressedModel
from studio.export.onnx.arrays import Settings, arrays_of, settings_of
from studio.export.onnx.protobuf import external_tensor
from studio.planning.plan import Assignment
from studio.quantization.packing import PackedTensor

DATA = "_data"
"""What follows the name of a model's file in that of its weights', as transformers.js has it."""


class Weights:
    """Where a compressed model's arrays lie, a :class:`studio.export.onnx.nodes.Weights`."""

    def __init__(self, model: CompressedModel, file: str) -> None:
        """``file``: the name of the file of weights."""
        self._file = file
        self._shapes = {a.layer.name: a.layer.matrix if a.scheme else a.layer.shape for a in model.plan.assignments}
        self._settings = {a.layer.name: settings_for(a) for a in model.plan.assignments}
        self.slots: dict[str, Slot] = {}
        """By a tensor's name, with that of its part behind a stroke where it has some."""
        for a in model.plan.assignments:
            name, settings = a.layer.name, self._settings[a.layer.name]
            if settings is None:
                saved = DTYPE_NAMES[model.checkpoint.saved_dtype(a.layer)]
                self.slots[name] = Slot(saved if is_matrix(a) else "F32", a.layer.shape)
            else:
                self.slots |= {f"{name}/{part}": slot for part, slot in settings.slots(a.layer.matrix).items()}
        self._starts, _ = ConstantFile.layout(self.slots)

    def tensor(self, called: str, name: str, part: str, shape: tuple[int, ...] | None) -> bytes:
        key = _key(name, part)
        slot = self.slots[key]
        sizes = slot.shape if shape is None else shape
        return external_tensor(called, slot.dtype, sizes, self._file, self._starts[key], slot.nbytes)

    def settings(self, name: str) -> Settings | None:
        return self._settings[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str, part: str) -> str:
        return self.slots[_key(name, part)].dtype

    def __contains__(self, name: str) -> bool:
        return name in self._shapes


def _key(name: str, part: str) -> str:
    return f"{name}/{part}" if part else name


def is_matrix(a: Assignment) -> bool:
    """Return whether a tensor that is kept stays in 16 bits. Norms and biases become 32, which all builds add."""
    return len(a.layer.shape) > 1


def kept_bytes(a: Assignment) -> int:
    """Return the bytes of a tensor that is kept."""
    return a.nbytes if is_matrix(a) else 4 * a.layer.numel


def settings_for(a: Assignment) -> Settings | None:
    """Return how a weight is held, None for one that is kept, or that onnxruntime does not hold as it is: rows are
    looked up of integers alone."""
    found = None if a.scheme is None else settings_of(a.scheme, a.layer.matrix[1])
    return None if found is not None and found.has_levels and a.layer.kind is Kind.EMBEDDING else found


def parts(a: Assignment, _: int, tensor: PackedTensor | Tensor) -> Mapping[str, Tensor]:
    """Return some rows of a tensor by the names of the slots."""
    if isinstance(tensor, PackedTensor):
        return {f"{a.layer.name}/{part}": array for part, array in arrays_of(tensor).items()}
    return {a.layer.name: tensor if is_matrix(a) else tensor.float()}

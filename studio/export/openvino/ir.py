"""OpenVINO's two files of a model, its graph as XML and the bytes of its constants, made without the weights.

The graph is built over constants that are all one block of zeros, which takes no memory until it is written to, and is
then told where in the second file each constant lies. Names are given in the graph's order, so that the same folder
gives the same bytes. Runs in a process of its own, for it reads a stranger's config and tokenizer.

Source: IR version 11 as ``openvino.serialize`` writes it, OpenVINO 2026.4. Knows no family.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from torch import dtype as TorchDtype

from studio.base.errors import CheckpointError
from studio.checkpoint.architecture import empty_model
from studio.checkpoint.checkpoint import read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.tensor_writer import DTYPE_NAMES, ConstantFile, Slot
from studio.checkpoint.tokenizer.files import read_tokenizer
from studio.export.compressed_model import CompressedModel, opened
from studio.export.graph_families import check_family, unknown_family
from studio.export.openvino.arrays import Constants, Part, constants_of
from studio.export.openvino.graph import model_of
from studio.export.openvino.library import opset
from studio.runtime.decoder.llama_like import shape_of

MODEL, TOKENIZERS = "openvino_model", ("openvino_tokenizer", "openvino_detokenizer")
PROGRAM = "OpenVINO"
KEPT = ""
"""The part that a tensor is which is not compressed."""
COUNTED = re.compile(r"[A-Za-z]+_[0-9]+")
"""A name that OpenVINO gave."""
Key = tuple[str, str]
"""A tensor's name, and its part's."""


@dataclass(frozen=True)
class Layout:
    """What constants there are, in the order of the file of them."""

    parts: dict[Key, Part]
    forms: dict[str, Constants | None]

    @property
    def slots(self) -> dict[str, Slot]:
        """Their bytes, by their names in the graph."""
        return {name_of(key): Slot("U8", (part.nbytes,)) for key, part in self.parts.items()}


@dataclass(frozen=True)
class Built:
    """What is written beside the weights."""

    small: bytes
    """The graph's own constants, which follow the weights."""
    texts: dict[str, bytes]
    """Whole files, by name."""


def layout_of(model: CompressedModel) -> Layout:
    """Return the layout of a compressed model's weights, in the model's order."""
    parts: dict[Key, Part] = {}
    forms: dict[str, Constants | None] = {}
    for a in model.plan.assignments:
        name = a.layer.name
        form = forms[name] = None if a.scheme is None else constants_of(a.scheme, a.layer.matrix[1])
        if form is None:
            parts[name, KEPT] = Part(_type(model.checkpoint.saved_dtype(a.layer)), a.layer.shape)
        else:
            parts |= {(name, part): held for part, held in form.parts(a.layer.matrix).items()}
    return Layout(parts, forms)


def _type(dtype: TorchDtype) -> str:
    return DTYPE_NAMES[dtype].lower()


class _Zeros:
    """Constants without their numbers, a :class:`studio.export.openvino.graph.Store`.

    All share one piece of memory, which is there until :meth:`close`.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._zeros = np.zeros(max(part.nbytes for part in layout.parts.values()), np.uint8)
        self._made: dict[Key, Any] = {}

    def constant(self, tensor: str, part: str) -> Any:
        if (tensor, part) not in self._made:
            import openvino

            form = self._layout.parts[tensor, part]
            shape, kind = openvino.Shape(form.shape), getattr(openvino.Type, form.type)
            node = opset().constant(openvino.Tensor(self._zeros[: form.nbytes], shape, kind), shared_memory=True)
            node.set_friendly_name(name_of((tensor, part)))
            self._made[tensor, part] = node
        return self._made[tensor, part]

    def close(self) -> None:
        """Give the memory back, which no graph of these constants may outlive."""
        self._made.clear()
        self._zeros = self._zeros[:0]

    def form(self, tensor: str) -> Constants | None:
        return self._layout.forms[tensor]

    def width(self, tensor: str) -> int:
        parts = [part.shape for (name, _), part in self._layout.parts.items() if name == tensor]
        return int(np.prod(parts[0][1:]))

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._layout.forms


def name_of(key: Key) -> str:
    """Return what a constant is called in the graph."""
    tensor, part = key
    return f"{tensor}/{part}" if part else tensor


def built(folder: Path) -> Built:
    """Return what is written of a compressed folder beside its weights.

    Raises ModelError for a model that the graph does not have, CheckpointError for a tokenizer that cannot be read.
    """
    model = opened(folder)
    config = load_config(read_json(folder / CONFIG))
    check_family(PROGRAM, config)
    shape = shape_of(empty_model(config))
    if shape is None:
        raise unknown_family(PROGRAM, str(config.model_type))
    layout = layout_of(model)
    zeros = _Zeros(layout)
    xml, small = _described(model_of(shape, zeros), layout)
    zeros.close()  # not sooner: the graph reads this memory, and holds none of it
    return Built(small, {f"{MODEL}.xml": xml, **_tokenizers(folder)})


def _described(graph: Any, layout: Layout) -> tuple[bytes, bytes]:
    """Return the XML of a graph, and the bytes of its constants that ``layout`` does not place."""
    slots = layout.slots
    starts, end = ConstantFile.layout(slots)
    places = {name: (start, slots[name].nbytes) for name, start in starts.items()}
    _name(graph, places)
    own = {node.get_friendly_name(): node for node in graph.get_ops() if node.get_type_name() == "Constant"}
    with tempfile.TemporaryDirectory() as place:
        import openvino

        file = Path(place) / f"{MODEL}.xml"
        openvino.serialize(graph, file, os.devnull)
        tree = ElementTree.parse(file)
    small = bytearray()
    there: dict[bytes, int] = {}
    for data, name in _constants(tree):
        start, nbytes = places.get(name) or _added(np.asarray(own[name].data).tobytes(), small, there, end)
        data.set("offset", str(start))
        data.set("size", str(nbytes))
    return ElementTree.tostring(tree.getroot(), encoding="utf-8", xml_declaration=True), bytes(small)


def _constants(tree: "ElementTree.ElementTree[Any]") -> Iterator[tuple[ElementTree.Element, str]]:
    """Yield what says where a constant lies, and its name."""
    for layer in tree.iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            yield data, layer.get("name", "")


def _added(numbers: bytes, small: bytearray, there: dict[bytes, int], first: int) -> tuple[int, int]:
    """Put numbers behind those that are there, equal ones once, and return where they begin and how many bytes."""
    if numbers not in there:
        small.extend(bytes(-len(small) % ConstantFile.ALIGNMENT))
        there[numbers] = first + len(small)
        small.extend(numbers)
    return there[numbers], len(numbers)


def _name(graph: Any, named: Mapping[str, Any]) -> None:
    """Call every node and tensor by its place in the graph, but what has a name of its own: OpenVINO counts on from
    model to model."""
    for place, node in enumerate(graph.get_ordered_ops()):
        name = node.get_friendly_name()
        if name not in named and (COUNTED.fullmatch(name) or node.get_type_name() != "Parameter"):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")
        for tensor in node.outputs():
            names = tensor.get_names()
            kept = {each for each in names if not COUNTED.fullmatch(each)}
            if kept != names:
                tensor.set_names(kept or {node.get_friendly_name()})


def _tokenizers(folder: Path) -> dict[str, bytes]:
    """Return the files of OpenVINO's tokenizer and detokenizer. Raises CheckpointError."""
    import openvino
    from openvino_tokenizers import convert_tokenizer

    found: dict[str, bytes] = {}
    try:
        graphs = convert_tokenizer(read_tokenizer(folder), with_detokenizer=True)
    except Exception as error:  # whatever a stranger's tokenizer makes the library raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError("to_openvino_tokenizer", reason=reason) from error
    with tempfile.TemporaryDirectory() as place:
        for name, graph in zip(TOKENIZERS, graphs, strict=True):
            _name(graph, {})
            file = Path(place) / f"{name}.xml"
            openvino.serialize(graph, file)
            found |= {each.name: each.read_bytes() for each in (file, file.with_suffix(".bin"))}
    return found

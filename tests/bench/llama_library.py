"""llama.cpp's own library, as the npm package brings it: its quantizer, and its logits for a file.

Structures are not declared: each is filled by the library's own ``..._default_params``, and the few fields that are set
lie where ``llama.h`` of its release (v0.4.0) has them, beside neighbours whose defaults are checked.
"""

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engines.installed import installed

VERSION = "3.21.1"
"""Of node-llama-cpp, which names its llama.cpp by itself."""
RELEASE = "v0.4.0"
PLACE = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
SIZE = 512
"""Bytes that hold any of the structures."""
N_CTX, N_BATCH, N_UBATCH, N_THREADS, N_THREADS_BATCH = 0, 4, 8, 28, 32
"""Where fields of ``llama_context_params`` stand; likewise below, of ``llama_model_quantize_params``."""
Q_THREADS, Q_TYPE, Q_OUTPUT, Q_EMBEDDING, Q_PURE, Q_IMATRIX = 0, 4, 8, 12, 19, 24
NO_TYPE = 43
"""``GGML_TYPE_COUNT`` of the release."""
FILE_TYPES = {
    "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "q4_k": 15, "q4_k_m": 15, "q5_k": 17, "q5_k_m": 17, "q6_k": 18,
    "iq4_nl": 25, "iq4_xs": 30,
}  # fmt: skip
"""``llama_ftype``, what a whole file is asked to be."""


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class _ByValue(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_ubyte * SIZE),)


class _Importance(ctypes.Structure):
    """``llama_model_imatrix_data``."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


def installation() -> Path:
    """Return the folder with ``node_modules``, fetched where it is not there yet. Raises SystemExit where none runs."""
    named = os.environ.get("STUDIO_NODE_LLAMA")
    try:
        return (Path(named) if named else installed()).resolve()
    except pytest.skip.Exception as reason:
        raise SystemExit(str(reason)) from None


def folder() -> Path:
    """Return the folder with the libraries. Raises SystemExit where none run."""
    return installation() / PLACE


SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
"""Called for as long as the library is loaded."""


@cache
def _library() -> ctypes.CDLL:
    base = ctypes.CDLL(str(folder() / f"libggml.{RELEASE}.so"))
    llama = ctypes.CDLL(str(folder() / f"libllama.{RELEASE}.so"))
    llama.llama_log_set(SILENT, None)
    base.ggml_backend_load_all_from_path(str(folder()).encode())
    llama.llama_backend_init()
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_logits", "llama_get_memory"):
        getattr(llama, name).restype = ctypes.c_void_p
    llama.llama_batch_init.restype = _Batch
    llama.llama_decode.argtypes = [ctypes.c_void_p, _Batch]
    return llama


def _defaults(kind: str, **known: tuple[int, int]) -> _ByValue:
    """Return a structure as the library fills it. Raises SystemExit where a field does not hold its known default."""
    value = _ByValue()
    fill = getattr(_library(), f"llama_{kind}_default_params")
    fill.restype, fill.argtypes = None, [ctypes.c_void_p]
    fill(ctypes.addressof(value))  # who returns a large structure is given its place as first argument (System V ABI)
    for name, (at, expected) in known.items():
        if _int(value, at) != expected:
            raise SystemExit(f"llama.cpp's {kind} has no {name} at byte {at}: another release than {RELEASE}")
    return value


def _int(value: _ByValue, at: int) -> int:
    number: int = struct.unpack_from("<i", bytes(value.bytes), at)[0]
    return number


def _set(value: _ByValue, at: int, number: int) -> None:
    struct.pack_into("<i", value.bytes, at, number)


def quantize_file(
    source: Path, out: Path, kind: str, imatrix: Mapping[str, Tensor] | None, *, pure: bool, embedding: str | None
) -> None:
    """Let llama.cpp make ``out`` of an F32 file, as its ``llama-quantize`` does. Raises SystemExit where it cannot.

    ``imatrix``: E[x^2] fp32 [K] of the inputs of each tensor, by its name in the file. ``pure``: every tensor takes the
    type, but for the embedding, where one is named.
    """
    how = _defaults("model_quantize", ftype=(Q_TYPE, 7), output=(Q_OUTPUT, NO_TYPE), embedding=(Q_EMBEDDING, NO_TYPE))
    _set(how, Q_THREADS, torch.get_num_threads())
    _set(how, Q_TYPE, FILE_TYPES[kind])
    if embedding is not None:
        _set(how, Q_EMBEDDING, gguf.GGMLQuantizationType[embedding.upper()])
        _set(how, Q_OUTPUT, gguf.GGMLQuantizationType[embedding.upper()])
    how.bytes[Q_PURE] = int(pure)
    values = {name: power.float().contiguous() for name, power in (imatrix or {}).items()}
    entries = (_Importance * (len(values) + 1))()  # the last, without a name, ends it
    for entry, (name, power) in zip(entries, values.items(), strict=False):
        entry.name, entry.size, entry.data = name.encode(), len(power), power.data_ptr()
    if values:
        struct.pack_into("<Q", how.bytes, Q_IMATRIX, ctypes.addressof(entries))
    code = _library().llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(how))
    if code:
        raise SystemExit(f"llama.cpp could not make {kind} of {source.name}")


def quantize_rows(weight: Tensor, kind: str, power: Tensor | None) -> Tensor:
    """Return the bytes of ``weight`` [N, K], uint8 [N, row], by the function that the quantizer itself calls."""
    core = ctypes.CDLL(str(folder() / "libggml-base.so")).ggml_quantize_chunk
    core.restype = ctypes.c_size_t
    number = gguf.GGMLQuantizationType[kind.upper()]
    block, size = gguf.GGML_QUANT_SIZES[number]
    rows, width = weight.shape
    numbers = weight.float().contiguous()
    out = torch.empty(rows, width // block * size, dtype=torch.uint8)
    pointer = None if power is None else power.float().contiguous()
    written = core(
        int(number), ctypes.c_void_p(numbers.data_ptr()), ctypes.c_void_p(out.data_ptr()), ctypes.c_int64(0),
        ctypes.c_int64(rows), ctypes.c_int64(width), ctypes.c_void_p(None if pointer is None else pointer.data_ptr()),
    )  # fmt: skip
    if written != out.numel():
        raise SystemExit(f"llama.cpp wrote {written} bytes of {out.numel()}")
    return out


class Engine:
    """A file that llama.cpp has loaded; its cache of keys and values is at 16 bits, as is usual there."""

    def __init__(self, file: Path, length: int) -> None:
        """``length``: tokens of the longest window. Raises SystemExit for a file that llama.cpp refuses."""
        self._llama, self._length = _library(), length
        self._model = self._llama.llama_model_load_from_file(os.fsencode(file), _defaults("model"))
        if not self._model:
            raise SystemExit(f"llama.cpp does not load {file.name}")
        how = _defaults("context", n_ctx=(N_CTX, 512), n_batch=(N_BATCH, 2048), threads=(N_THREADS, 4))
        for at in (N_CTX, N_BATCH, N_UBATCH):
            _set(how, at, length)
        for at in (N_THREADS, N_THREADS_BATCH):
            _set(how, at, torch.get_num_threads())
        self._context = self._llama.llama_init_from_model(ctypes.c_void_p(self._model), how)
        if not self._context:
            raise SystemExit(f"llama.cpp has no context for {file.name}")

    def logits(self, ids: Tensor) -> Tensor:
        """Return the logits after each of ``ids`` int64 [T], fp32 [T, V], each window from an empty cache."""
        context = ctypes.c_void_p(self._context)
        self._llama.llama_memory_clear(ctypes.c_void_p(self._llama.llama_get_memory(context)), ctypes.c_bool(True))
        batch = self._llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids.tolist()):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0], batch.logits[place] = 0, 1
        try:
            code = self._llama.llama_decode(context, batch)
            if code:
                raise SystemExit(f"llama.cpp's decoder ended with {code}")
            vocabulary = self._vocabulary()
            start = ctypes.cast(self._llama.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
            return torch.from_numpy(np.ctypeslib.as_array(start, (len(ids), vocabulary)).copy())
        finally:
            self._llama.llama_batch_free(batch)

    def _vocabulary(self) -> int:
        get: Any = self._llama.llama_model_get_vocab
        get.restype = ctypes.c_void_p
        return int(self._llama.llama_vocab_n_tokens(ctypes.c_void_p(get(ctypes.c_void_p(self._model)))))

    def close(self) -> None:
        """Give its memory back."""
        self._llama.llama_free(ctypes.c_void_p(self._context))
        self._llama.llama_model_free(ctypes.c_void_p(self._model))


@contextmanager
def engine(file: Path, length: int) -> Iterator[Engine]:
    """Lend a file that llama.cpp has loaded."""
    opened = Engine(file, length)
    try:
        yield opened
    finally:
        opened.close()

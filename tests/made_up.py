"""Formats that nobody has: what no layout, no compiled twin and no table can know, registered for a while."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from studio.base.text import LANGUAGES, catalogue
from studio.quantization.methods import Method, Rounding
from studio.quantization.mode import Format, Mode
from studio.quantization.rounding.integer import asymmetric
from studio.quantization.rounding.quantized_weight import EPSILON, NumberFormat, largest


def squares(bits: int) -> NumberFormat:
    """Return a grid of its own kind: codes stand for squares, so no layout may take them for steps or for a table."""
    half = 2 ** (bits - 1)

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        scale = largest(grouped).clamp_(min=EPSILON)
        return encode(grouped / scale, None), scale.squeeze(2), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        codes: Tensor = (normal.sign() * normal.abs().sqrt() * (half - 1)).round().clamp(1 - half, half - 1) + half
        return codes

    def values(codes: Tensor, _: Tensor | None) -> Tensor:
        steps = (codes.to(torch.float32) - half) / (half - 1)
        powers: Tensor = steps.sign() * steps.square()
        return powers

    return NumberFormat(round_, values, encode)


FORMATS = {
    "made6_zeros": Format(6, lambda: asymmetric(6), zero_point_bits=6),
    "made3_zeros": Format(3, lambda: asymmetric(3), zero_point_bits=3),
    "made4_squares": Format(4, lambda: squares(4), scale_dtype="BF16"),
    "made7_squares": Format(7, lambda: squares(7), scale_dtype="F32", is_backup=True, is_surveyed=True),
}


@contextmanager
def words(keys: list[str]) -> Iterator[None]:
    """Let every catalogue have these keys for a while."""
    for language in LANGUAGES:
        catalogue(language).update({key: key for key in keys})
    try:
        yield
    finally:
        for language in LANGUAGES:
            for key in keys:
                del catalogue(language)[key]


@contextmanager
def registered() -> Iterator[list[Mode]]:
    """Register every format of :data:`FORMATS` for a while."""
    with ExitStack() as stack:
        stack.enter_context(words([f"plan.mode_{name}" for name in FORMATS]))
        modes = []
        for name, form in FORMATS.items():
            modes.append(Mode.register(name, form))
            stack.callback(Mode.remove, name)
        yield modes


@contextmanager
def method(name: str, rounding: Rounding) -> Iterator[Method]:
    """Register a method for a while."""
    with words([f"method.{name}", f"method.info_{name}"]):
        made = Method.register(name, rounding)
        try:
            yield made
        finally:
            Method.remove(name)

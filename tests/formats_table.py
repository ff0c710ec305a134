"""The table of formats, ``make reference``: every registered one. Writes docs/formats.md."""

from pathlib import Path

from studio.base.text import text
from studio.quantization.mode import WHOLE_CHANNEL, Mode
from studio.quantization.scheme import Scheme

FILE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
HEAD = """# Formats

What a compressed weight can be stored as, in the order of the page's menu. Made from what is registered in
`studio/quantization/formats.py` by `make reference`; a test says when it is old.
*Bits per weight* is of a weight [4096, 4096] in groups of 64, or in the groups that the format prescribes, with scales,
zero points and what the tensor shares.

| mode | what it is | bits | group sizes | scales | zero points | the tensor shares | bits per weight | backup |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
SHAPE = (4096, 4096)


def row(mode: Mode) -> str:
    """Return a mode's row."""
    form = mode.stored_as
    sizes = ", ".join("a channel" if size == WHOLE_CHANNEL else str(size) for size in form.group_sizes)
    shared = "" if form.tensor_params is None else f"{form.tensor_params[2]} {form.tensor_params[1]}"
    scales = form.scale_dtype if form.block is None else f"in blocks of {form.block[0]}"
    zeros = f"{form.zero_point_bits} bits" if form.has_zero_point else ""
    weight = Scheme.of(mode, 64).nbytes(SHAPE) * 8 / (SHAPE[0] * SHAPE[1])
    words = text(f"plan.mode_{mode}").removeprefix(f"{mode}, ").removesuffix(" (slow)")
    cells = (f"`{mode}`", words, form.bits, sizes, scales, zeros, shared, f"{weight:.3f}", f"`{form.backup}`")
    return f"| {' | '.join(map(str, cells))} |"


def table() -> str:
    """Return the whole file."""
    modes = sorted(Mode, key=lambda mode: mode.stored_as.rank)
    return HEAD + "".join(f"{row(mode)}\n" for mode in modes)


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")

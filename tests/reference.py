"""The tables of docs/reference.md, ``make reference``: what is registered, from the registries and the catalogue.

A test compares the file with what this writes.
"""

from collections.abc import Iterable

from studio.base.text import text
from studio.export.targets import TARGETS
from studio.planning.figures import FIGURES
from studio.quantization.methods import Method
from studio.runtime.decoder.families import FAMILIES
from tests.conftest import ROOT

FILE = ROOT / "docs" / "reference.md"
HEAD = """# What is registered

`make reference` writes this file from the registries; [adding.md](adding.md) says how something joins them.
"""


def tables() -> str:
    """Return the whole file."""
    parts = [
        HEAD,
        "## Methods of rounding\n",
        "In the order of the menu; *ns a weight* is about what one costs on two cores, calibration included.\n",
        _table(
            ("name", "in the menu", "what it does", "reads a text", "ns a weight"),
            (
                (
                    f"`{method}`",
                    text(f"method.{method}").removeprefix(f"{method}: "),
                    text(f"method.info_{method}"),
                    _yes(method.needs_inputs),
                    f"{method.rounding.nanoseconds:,.0f}",
                )
                for method in Method
            ),
        ),
        "## Figures of the map\n",
        _table(
            ("name", "in the menu", "what the map says", "measured over a short text", "adds up"),
            (
                (
                    f"`{figure.name}`",
                    text(f"figure.{figure.name}.choice"),
                    text(f"figure.{figure.name}.legend"),
                    _yes(figure.measure is not None),
                    _yes(figure.adds_up),
                )
                for figure in FIGURES.values()
            ),
        ),
        "## Export targets\n",
        _table(
            ("name", "what it is", "who loads it", "file"),
            (
                (
                    f"`{target.name}`",
                    text(f"target.{target.name}.title"),
                    text(f"target.{target.name}.loads"),
                    f"`{target.suffix}`" if target.suffix else "a folder",
                )
                for target in TARGETS.values()
            ),
        ),
        "## Families with a compiled step\n",
        "All other families of [families.md](families.md) answer through transformers' modules on packed products.\n",
        _table(
            ("`model_type`", "its norms add to their weights", "may rotate in part"),
            (
                (f"`{family.model_type}`", f"{family.norm_plus:g}", _yes(family.may_rotate_partly))
                for family in FAMILIES.values()
            ),
        ),
    ]
    return "\n".join(parts)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "–"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(tables(), encoding="utf-8")

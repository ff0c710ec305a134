"""Numbers with names and labels, in Prometheus' text format. Knows not what they count.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). A library for it would bring
registries, processes' files and a server of its own for what are twenty lines here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Numbers of one name."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: Labels
    values: Mapping[Labels, float]
    """The values of the labels, in their order -> a number."""


def number(name: str, kind: Literal["counter", "gauge"], help_: str, value: float) -> Family:
    """Return a family of one number without labels."""
    return Family(name, kind, help_, (), {(): value})


def exposed(families: Iterable[Family]) -> str:
    """Return the text of all of them, each name once."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"]
        for values, value in family.values.items():
            pairs = ",".join(f'{name}="{_quoted(said)}"' for name, said in zip(family.labels, values, strict=True))
            lines.append(f"{family.name}{f'{{{pairs}}}' if pairs else ''} {float(value)!r}")
    return "\n".join(lines) + "\n"


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(words: str) -> str:
    return _escaped(words).replace('"', r"\"")

"""``make reference-points``: every preset of the built-in model carried out and measured, into assets/reference.json.

What the page shows of it in its first second are these measurements: run it after a change of presets or of rounding.
Minutes for each; ``--missing`` measures only those that the file does not have yet.
"""

import argparse
import json
from contextlib import closing
from typing import Any

from studio.base.assets import asset
from studio.checkpoint.open_model import BUILTIN
from studio.export.targets import TARGETS
from studio.planning.choice import Choice
from studio.planning.presets import PRESETS, preset_choice
from studio.session.reference import FILE
from studio.session.session import Session
from tests.steps import finish

TARGETS_OF = ("gguf", "studio")
"""Whose presets are measured: MLX's are not yet."""


def wanted(session: Session) -> list[tuple[str, Choice]]:
    """Return every preset of the built-in model, with the target that it is of."""
    assert session.checkpoint is not None
    layers = session.checkpoint.layers
    return [(target, preset_choice(TARGETS[target].presets[name], layers)) for target in TARGETS_OF for name in PRESETS]


def measured(session: Session, target: str, choice: Choice) -> dict[str, Any]:
    """Carry a choice out, compare with the original on the built-in texts, and return the line of the file."""
    session.planner.choose(choice)
    done = finish(session.compress())
    assert session.checkpoint is not None
    drift = finish(session.copy.measure_drift(session.checkpoint, None, with_floor=False))
    found = drift.evaluation
    assert found is not None
    assert found.kld.standard_error is not None
    return {
        "choice": choice.words(),
        "nbytes": TARGETS[target].size(done.plan),
        "target": target,
        "kld": round(found.kld.mean, 5),
        "standard_error": round(found.kld.standard_error, 5),
        "same_top": round(found.same_top.mean, 4),
        "tokens": found.tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true")
    only_missing = parser.parse_args().missing
    file = asset(FILE)
    before = json.loads(file.read_text(encoding="utf-8"))["points"] if only_missing else []
    with closing(Session()) as session:
        finish(session.open(BUILTIN))
        points = []
        for target, choice in wanted(session):
            words = {"choice": choice.words(), "target": target}
            kept = next((point for point in before if words.items() <= point.items()), None)
            points.append(kept or measured(session, target, choice))
            print(json.dumps(points[-1]), flush=True)
            text = json.dumps({"points": points}, indent=1, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

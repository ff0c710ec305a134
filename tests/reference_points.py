"""``make reference-points``: every preset of the built-in model carried out and measured, into assets/reference.json.

What the page shows of it in its first second are these measurements: run it after a change of presets or of rounding.
What rounding each of its layers to nearest is predicted to cost goes into assets/damages.json.
Minutes for each; ``--missing`` measures only those that the file does not have yet.
"""

import argparse
import json
from contextlib import closing
from typing import Any

from studio.base.assets import asset
from studio.checkpoint.layers import ratio_defining
from studio.checkpoint.open_model import BUILTIN, open_model
from studio.export.targets import TARGETS
from studio.planning import predicted_damage
from studio.planning.choice import Choice
from studio.planning.palettes import PALETTES
from studio.planning.presets import PRESETS, preset_choice
from studio.planning.survey import candidates
from studio.session.reference import FILE
from studio.session.session import Session
from tests.steps import finish

TARGETS_OF = ("gguf", "studio", "mlx")
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


def keep_damages() -> None:
    """Measure what every scheme of every palette would cost each layer, and the survey's own, into the file."""
    checkpoint = finish(open_model(BUILTIN, paths=False))
    schemes = {str(scheme): scheme for palette in PALETTES.values() for scheme in palette.schemes}
    for layer in ratio_defining(checkpoint.layers, True):
        schemes |= {str(scheme): scheme for scheme in candidates(layer)}
    asset(predicted_damage.SHIPPED).write_text('{"model": "", "version": 0, "damages": {}}', encoding="utf-8")
    found = finish(predicted_damage.measure(checkpoint, list(schemes.values())))
    damages = {name: {scheme: float(f"{cost:.4g}") for scheme, cost in line.items()} for name, line in found.items()}
    kept = {"model": checkpoint.name, "version": predicted_damage.VERSION, "damages": damages}
    asset(predicted_damage.SHIPPED).write_text(json.dumps(kept) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="measure only presets that the file does not have yet")
    parser.add_argument("--damages", action="store_true", help="only what each scheme would cost each layer")
    given = parser.parse_args()
    only_missing = given.missing
    if given.damages or not only_missing:
        keep_damages()
    if given.damages:
        return
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

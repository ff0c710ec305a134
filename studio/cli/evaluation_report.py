"""What kinds of tensor lose, and what a model can still do, for machines and as lines to read. Decides nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from studio.cli.terminal import say

if TYPE_CHECKING:  # what brings torch
    from studio.evaluation.figures import WindowMean
    from studio.evaluation.tensor_kinds import KindLoss
    from studio.session.abilities import Abilities

Rows = list[tuple[str, str]]


def kind_facts(losses: "Sequence[KindLoss]") -> list[dict[str, Any]]:
    """Return the rows for ``--json``: bits of each kind, whether it is a simulation, and what it loses."""
    return [
        {
            "name": loss.name,
            "weight_bits": loss.weight_bits,
            "input_bits": loss.input_bits,
            "kv_bits": loss.kv_bits,
            "simulated": loss.is_simulated,
            "kld": asdict(loss.evaluation.kld),
            "same_top": asdict(loss.evaluation.same_top),
            "perplexity": asdict(loss.evaluation.perplexity),
            "original_perplexity": asdict(loss.evaluation.original_perplexity),
            "tokens": loss.evaluation.tokens,
        }
        for loss in losses
    ]


def kind_rows(losses: "Sequence[KindLoss]") -> Rows:
    """Return the rows to be read: KL divergence with its error, and the share of tokens that stay the likeliest."""
    return [(_named(loss), say("kind_loss", kld=_shown(loss.evaluation.kld), same=_same(loss))) for loss in losses]


def ability_facts(done: "Abilities") -> dict[str, Any]:
    """Return what was asked for, for ``--json``."""
    return {
        "answers": {part: asdict(flips) for part, flips in done.flips.items()},
        "long_context": [asdict(each) for each in done.found],
    }


def ability_rows(done: "Abilities") -> Rows:
    """Return the same to be read: answers that changed sides, right ones in brackets, beside the original's."""
    answers = [
        (
            say(f"ability_{part}"),
            say(
                "ability",
                changed=flips.flipped,
                count=flips.questions,
                right=flips.right,
                original=flips.original_right,
            ),
        )
        for part, flips in done.flips.items()
    ]
    keys = [
        (
            say("ability_long", tokens=f"{each.tokens:,}"),
            say("ability", changed=each.changed, count=each.keys, right=each.found, original=each.original_found),
        )
        for each in done.found
    ]
    return answers + keys


def _named(loss: "KindLoss") -> str:
    return say("kind_simulated" if loss.is_simulated else "kind_real", name=loss.name)


def _same(loss: "KindLoss") -> str:
    return f"{100 * loss.evaluation.same_top.mean:.1f}"


def _shown(figure: "WindowMean") -> str:
    error = "" if figure.standard_error is None else f" ± {figure.standard_error:.4f}"
    return f"{figure.mean:.4f}{error}"

"""A plan's and an answer's figures, for machines (``--json``) and as lines to read in a terminal. Decides nothing."""

from collections.abc import Mapping
from typing import Any

from studio.checkpoint import Checkpoint
from studio.plan import Plan
from studio.terminal import say
from studio.units import format_bytes

Rows = list[tuple[str, str]]


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known of a model, for ``--json``."""
    return {
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "architecture": checkpoint.architecture,
        "source_format": checkpoint.source_format,
        "source_bytes": checkpoint.source_bytes,
        "part": checkpoint.part,
        "can_chat": checkpoint.can_chat,
    }


def plan_facts(plan: Plan, errors: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return a plan for ``--json``; with ``errors``, each layer's relative error is beside it, null where kept."""
    choice = plan.choice
    layers: list[dict[str, Any]] = [
        {
            "name": a.layer.name,
            "shape": list(a.layer.shape),
            "scheme": "float16" if a.scheme is None else str(a.scheme),
            "bytes": a.nbytes,
        }
        | ({} if errors is None else {"relative_error": errors.get(a.layer.name)})
        for a in plan.assignments
    ]
    return {
        "mode": choice.mode.value,
        "group_size": choice.primary.group_size,
        "ratio": choice.ratio,
        "backup": "none" if choice.backup is None else choice.backup.value,
        "exact": plan.is_exact,
        "original_bytes": plan.original_bytes,
        "compressed_bytes": plan.compressed_bytes,
        "bits_per_weight": plan.bits_per_weight,
        "layers": layers,
    }


def heading(checkpoint: Checkpoint) -> str:
    """Return the model in a line: ``builtin (llama, Q4_1/Q8_0)``."""
    return f"{checkpoint.name} ({checkpoint.architecture}, {checkpoint.source_format})"


def plan_rows(plan: Plan) -> Rows:
    """Return the sizes, then what each scheme takes."""
    size = say(
        "compressed" if plan.is_exact else "estimated",
        size=format_bytes(plan.compressed_bytes),
        times=f"{plan.original_bytes / plan.compressed_bytes:.2f}",
        bits=f"{plan.bits_per_weight:.2f}",
    )
    shares = plan.distribution()
    total = sum(share.weights for share in shares)
    return [
        (say("original"), format_bytes(plan.original_bytes)),
        (plan.choice.mode.value, size),
        *(
            (f"  {share.scheme}", say("share", percent=f"{100 * share.weights / total:.1f}", layers=share.layers))
            for share in shares
        ),
    ]


def result_rows(errors: Mapping[str, float], seconds: float, path: object) -> Rows:
    """Return what compressing cost, and where the result lies."""
    mean = sum(errors.values()) / max(1, len(errors))
    return [(say("error"), f"{mean:.4f}"), (say("seconds"), f"{seconds:.1f}"), (say("path"), str(path))]


def speed(facts: Mapping[str, Any]) -> str:
    """Return the figures of an answer in a line."""
    return say(
        "speed",
        tokens=facts["tokens"],
        speed=f"{facts['tokens_per_second']:.1f}",
        first=f"{facts['time_to_first_token']:.2f}",
        memory=format_bytes(facts["weight_bytes"]),
    )

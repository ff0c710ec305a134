"""A plan's and an answer's figures, for machines (``--json``) and as lines to read in a terminal. Decides nothing."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer
from studio.cli.terminal import language, say
from studio.planning.choice import OPTIONS
from studio.planning.plan import Plan
from studio.planning.survey_file import Survey
from studio.quantization.scheme import Scheme

if TYPE_CHECKING:  # what brings torch, which a plan is told without
    from studio.chat.answer import ModelInfo, Reply
    from studio.evaluation.drift import Drift
    from studio.evaluation.figures import Evaluation, WindowMean
    from studio.planning.sampled_survey import Interval, SampledLayer

Figure = TypeVar("Figure")
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
        **{OPTIONS[name].key: word for name, word in plan.choice.facts().items()},
        "exact": plan.is_exact,
        "original_bytes": plan.original_bytes,
        "compressed_bytes": plan.compressed_bytes,
        "bits_per_weight": plan.bits_per_weight,
        "layers": layers,
    }


def survey_facts(checkpoint: Checkpoint, known: Survey) -> dict[str, Any]:
    """Return a survey for ``--json``: each layer's bytes and relative error in every scheme, and NNCF's score."""
    return {
        "layers": [
            _layer_facts(layer)
            | {
                "sensitivity": known.layers[layer.name].sensitivity,
                "schemes": {
                    name: {"bytes": Scheme.parse(name).nbytes(layer.matrix), "relative_error": error}
                    for name, error in known.layers[layer.name].errors.items()
                },
            }
            for layer in checkpoint.layers
            if layer.name in known.layers
        ]
    }


def sample_facts(checkpoint: Checkpoint, sampled: "Mapping[str, SampledLayer]") -> dict[str, Any]:
    """Return a sampled survey for ``--json``: as a whole one, with the ends of each error's confidence interval."""
    from studio.planning.sampled_survey import CONFIDENCE

    return {
        "confidence": CONFIDENCE,
        "layers": [
            _layer_facts(layer)
            | {
                "rows_read": sampled[layer.name].rows,
                "sensitivity_at_most": sampled[layer.name].sensitivity,
                "schemes": {
                    name: {
                        "bytes": Scheme.parse(name).nbytes(layer.matrix),
                        "relative_error": found.error,
                        "low": found.low,
                        "high": found.high,
                    }
                    for name, found in sampled[layer.name].errors.items()
                },
            }
            for layer in checkpoint.layers
            if layer.name in sampled
        ],
    }


def survey_rows(known: Survey) -> Rows:
    """Return each layer with its relative errors, best scheme first."""
    return [
        (name, _line(dict(sorted(line.errors.items(), key=lambda item: item[1])), "{:.2%}".format))
        for name, line in known.layers.items()
    ]


def sample_rows(sampled: "Mapping[str, SampledLayer]") -> Rows:
    """Return each layer with its relative errors and how far the true ones may be from them."""
    return [(name, _line(line.errors, _about)) for name, line in sampled.items()]


def _about(found: "Interval") -> str:
    return f"{found.error:.2%} ± {(found.high - found.low) / 2:.2%}"


def _line(errors: Mapping[str, Figure], show: Callable[[Figure], str]) -> str:
    return ", ".join(f"{scheme} {show(error)}" for scheme, error in errors.items())


def _layer_facts(layer: Layer) -> dict[str, Any]:
    return {"name": layer.name, "shape": list(layer.shape)}


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
        (plan.choice.title, size),
        *(
            (f"  {share.scheme}", say("share", percent=f"{100 * share.weights / total:.1f}", layers=share.layers))
            for share in shares
        ),
    ]


def result_rows(errors: Mapping[str, float], seconds: float, path: object) -> Rows:
    """Return what compressing cost, and where the result lies."""
    mean = sum(errors.values()) / max(1, len(errors))
    return [(say("error"), f"{mean:.4f}"), (say("seconds"), f"{seconds:.1f}"), (say("path"), str(path))]


def answer_facts(info: "ModelInfo", reply: "Reply") -> dict[str, Any]:
    """Return an answer and what it cost; measures this machine first, in half a second, for the share of its limit."""
    from studio.chat.roofline import decode_limit, device_of
    from studio.runtime.machine import measured

    machine = measured(device_of(info))
    limit = decode_limit(info, reply, machine)
    return {
        "text": reply.text,
        "prompt_tokens": reply.prompt_tokens,
        "tokens": reply.tokens,
        "tokens_per_second": reply.tokens_per_second,
        "prompt_tokens_per_second": reply.prompt_tokens_per_second,
        "time_to_first_token": reply.first_token_seconds,
        "weight_bytes": info.weight_bytes,
        "kv_bits": reply.kv_bits,
        "kv_bytes": reply.kv_bytes,
        "way": info.backend.value,
        "reason": info.reason,
        "limit_tokens_per_second": limit,
        "limit_share": reply.tokens_per_second / limit,
    }


def speed(facts: Mapping[str, Any]) -> str:
    """Return the figures of an answer in a line."""
    return say(
        "speed",
        tokens=facts["tokens"],
        speed=f"{facts['tokens_per_second']:.1f}",
        first=f"{facts['time_to_first_token']:.2f}",
        memory=format_bytes(facts["weight_bytes"]),
        prompt=f"{facts['prompt_tokens_per_second']:.0f}",
        kv=format_bytes(facts["kv_bytes"]),
        share=f"{facts['limit_share']:.0%}",
        way=text(f"chat.way_{facts['way']}", language()),
    )


def evaluation_facts(drift: "Drift") -> dict[str, Any]:
    """Return an evaluation as JSON holds it; figures are of tokens, standard errors of windows."""
    found = _evaluated(drift)

    def facts_of(figure: "WindowMean") -> dict[str, float | None]:
        return {"mean": figure.mean, "standard_error": figure.standard_error}

    return {
        "perplexity": facts_of(found.perplexity),
        "original_perplexity": facts_of(found.original_perplexity),
        "kld": facts_of(found.kld) | {"median": found.kld_median, "p99": found.kld_p99},
        "same_top": facts_of(found.same_top),
        "tokens": found.tokens,
        "flips": None if found.flips is None else asdict(found.flips),
        "floor": None
        if drift.floor is None
        else {
            "kld": facts_of(drift.floor.kld) | {"median": drift.floor.kld_median, "p99": drift.floor.kld_p99},
            "same_top": facts_of(drift.floor.same_top),
            "tokens": drift.floor.tokens,
        },
    }


def evaluation_rows(drift: "Drift") -> Rows:
    """Return an evaluation to be read."""
    found = _evaluated(drift)

    def mean_and_error(figure: "WindowMean", factor: float = 1.0, digits: int = 4) -> str:
        error = "" if figure.standard_error is None else f" ± {factor * figure.standard_error:.{digits}f}"
        return f"{factor * figure.mean:.{digits}f}{error}"

    rows = [
        (say("kld"), mean_and_error(found.kld)),
        (say("kld_spread"), f"{found.kld_median:.4f}, {found.kld_p99:.4f}"),
        (say("same_top"), f"{mean_and_error(found.same_top, 100, 1)} %"),
        (
            say("perplexity"),
            f"{mean_and_error(found.perplexity, digits=2)} / {mean_and_error(found.original_perplexity, digits=2)}",
        ),
    ]
    if found.flips is not None:
        flips = found.flips
        rows.append((say("flips"), f"{flips.flipped} / {flips.questions} ({flips.right} / {flips.original_right})"))
    if drift.floor is not None:
        rows.append((say("floor"), mean_and_error(drift.floor.kld)))
    return rows


def _evaluated(drift: "Drift") -> "Evaluation":
    if drift.evaluation is None:
        raise ValueError("nothing is evaluated yet")
    return drift.evaluation

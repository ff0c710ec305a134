"""What a plan that no GGUF file holds would be there: the mix of llama.cpp's nearest in bytes. Changes nothing.

It becomes that only by a choice of its name, from the original: numbers that were rounded once are not rounded again.
"""

from functools import lru_cache

from studio.base.errors import SchemeError
from studio.base.units import format_bytes
from studio.checkpoint.layers import Layer
from studio.export.gguf.file import tensor_bytes
from studio.export.gguf.types import slot_or_raw
from studio.planning.choice import Choice
from studio.planning.mixes import MIXES
from studio.planning.plan import Assignment, Plan, make_plan
from studio.quantization.scheme import Mode


def no_type(plan: Plan, a: Assignment) -> SchemeError:
    """Return what is said of a tensor whose scheme no type of GGUF holds, with what its plan would become."""
    sizes = mix_sizes(tuple(each.layer for each in plan.assignments))
    mix = min(sizes, key=lambda name: abs(sizes[name] - plan.compressed_bytes))
    return SchemeError(
        "to_gguf_scheme",
        layer=a.layer.name[:120],
        scheme=str(a.scheme),
        mix=mix,
        size=format_bytes(sizes[mix]),
        bits=f"{sizes[mix] * 8 / plan.weights:.2f}",
        modes=", ".join(mode.value for mode in Mode if mode.is_in_blocks),
    )


@lru_cache(maxsize=8)  # a refusal is asked for at every change of a plan, of the same layers
def mix_sizes(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Return the bytes of a file's tensors by mix."""
    plans = {name: make_plan(layers, Choice.of(mix=name)) for name in MIXES}
    return {
        name: tensor_bytes({a.layer.name: slot_or_raw(a) for a in plan.assignments}) for name, plan in plans.items()
    }

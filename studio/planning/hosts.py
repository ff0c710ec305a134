"""Whether a model fits the machine that somebody names, and how fast it can answer there: arithmetic on bytes.

Knows neither files nor this machine: what is measured here is given to it as a host like any other.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from studio.checkpoint.layers import Layer

GB = 10**9
PROGRAM = 300 * 10**6
"""Bytes that the program itself takes beside weights, keys and values: its code, vocabulary and buffers."""
CONTEXTS = (2048, 4096, 8192, 32768, 131072)
"""Tokens that can be asked for."""
DEFAULT_CONTEXT = 8192
THIS, OWN, DEFAULT = "this", "own", "laptop16"
"""The machine that serves the page, one whose figures the visitor gives, and the one to begin with."""


@dataclass(frozen=True)
class Host:
    """A machine that a model is to run on: ``Host("laptop16", 16 * GB, 51.2e9, 4 * GB)``."""

    name: str
    memory: int
    """Bytes in all."""
    bandwidth: float
    """Bytes of memory read a second; 0 where it is not known."""
    taken: int = 0
    """Bytes that the system, the screen and other programs hold."""

    @property
    def available(self) -> int:
        """Bytes for a model."""
        return max(0, self.memory - self.taken)


HOSTS = {
    host.name: host
    for host in (
        Host("laptop8", 8 * GB, 34.1e9, 3 * GB),  # two channels of DDR4-2133
        Host("laptop16", 16 * GB, 51.2e9, 4 * GB),  # of DDR4-3200
        Host("laptop32", 32 * GB, 76.8e9, 5 * GB),  # of DDR5-4800
        Host("gpu8", 8 * GB, 272e9, 1 * GB),  # GeForce RTX 4060
        Host("gpu12", 12 * GB, 360e9, 1 * GB),  # GeForce RTX 3060
        Host("gpu16", 16 * GB, 288e9, 1 * GB),  # GeForce RTX 4060 Ti
        Host("gpu24", 24 * GB, 1008e9, 1 * GB),  # GeForce RTX 4090
        Host("gpu80", 80 * GB, 2039e9, 1 * GB),  # A100
        Host("phone", 8 * GB, 51.2e9, 4 * GB),  # LPDDR5-6400, 64 bits; half of it is the system's and other apps'
    )
}
"""Typical ones, by name, in the order of the menu; bandwidths are what their makers state, which no program exceeds."""


def own_host(gigabytes: float, bandwidth: float) -> Host:
    """Return a host of so many GB, read at so many GB/s; of a figure that is no number, or none that can be, nothing.

    A quarter of the memory, at most 4 GB, counts as taken.
    """
    memory = int(_sane(gigabytes) * GB)
    return Host(OWN, memory, _sane(bandwidth) * GB, min(memory // 4, 4 * GB))


def _sane(number: float) -> float:
    return number if 0 < number < 1e6 else 0.0  # false for NaN too


@dataclass(frozen=True)
class Fit:
    """What a model takes on a host, in bytes."""

    host: Host
    weights: int
    cache: int
    """Keys and values of the whole context."""
    read: int
    """Weights that one token reads."""

    @property
    def need(self) -> int:
        return self.weights + self.cache + PROGRAM

    @property
    def fits(self) -> bool:
        return self.need <= self.host.available

    @property
    def largest(self) -> int:
        """Bytes of weights that would just fit."""
        return max(0, self.host.available - self.cache - PROGRAM)

    @property
    def tokens_per_second(self) -> float | None:
        """What reading memory allows at the beginning of an answer; None where the bandwidth is not known."""
        return self._tokens(self.read)

    @property
    def tokens_per_second_when_full(self) -> float | None:
        """The same once the whole context is in use."""
        return self._tokens(self.read + self.cache)

    def _tokens(self, read: int) -> float | None:
        return self.host.bandwidth / read if self.host.bandwidth and read else None


def cache_per_token(layers: Iterable[Layer]) -> int | None:
    """Return the bytes of keys and values at 16 bits that a token leaves, read off the layers that make them.

    None where no layer makes keys alone (they are fused with queries, or compressed): then the config is to be asked.
    """
    rows = [layer.matrix[0] for layer in layers if layer.name.endswith((".k_proj.weight", ".v_proj.weight"))]
    return 2 * sum(rows) if rows else None

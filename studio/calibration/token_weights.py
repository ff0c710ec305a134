"""How much each token's output of each layer affects the predictions: a weight for every layer and token.

An error in a layer's output y_t moves the predictions' KL divergence by its square under the Fisher information,
E[g g^T] of g = d log p(word) / d y_t, the mean over words of the model's own predictions p. Of it a single number is
kept, the square of g over the layer's channels, and one for all layers given the same (q, k and v). Not of a drawn
word, which is a rare event where the model is sure, but of a combination of all words with random signs: g has the
same mean square, and one pass tells it better. Sources: GuidedQuant (Kim et al. 2025), with one group of channels;
Hutchinson (1989) for the signs.

A pass forward and one backward of the original, block by block; it depends on model and text alone. Knows nothing of
schemes or rounding.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from studio.base.device import device
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.tensor_cache import Shelf
from studio.calibration.listeners import Gradient, listen_to_gradients
from studio.calibration.texts import digest
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.runtime.block_model import BlockModel
from studio.runtime.machine import fast_dtype

SEED = 0
LEAST = 0.5
"""What every token counts at least, in mean weights: a few that count hundreds would leave the others unheard."""
VERSION = 3
"""Raised when the weights change their meaning: those kept on disk are then not read any more."""
WEIGHTS_BYTES = 256 << 20
"""What all kept weights may take on disk."""
STATES_BYTES = 1 << 30
"""What the blocks were given may take in memory: more windows than that go in several passes."""


Hear = Callable[[str, Tensor], None]
"""Takes the gradient [W', T, N] that came back to the output of the layer of this name."""


def kept_weights(
    checkpoint: Checkpoint, layers: Sequence[Layer], tokens: Tensor, also: Hear | None = None
) -> Generator[Progress, None, dict[str, Tensor]]:
    """Return what :func:`token_weights` finds, at once where it was found before and nobody else listens. Raises as it
    does."""
    names = sorted(layer.name for layer in layers)
    shelf = Shelf(settings().cache_dir / "tokens", WEIGHTS_BYTES)
    # Sums differ in their last bits with these, and so does what is rounded by them: a recipe names them, too.
    sums_by = (device().type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    of = hashlib.sha256(repr((VERSION, SEED, names, sums_by)).encode()).hexdigest()[:16]
    file = f"{checkpoint.revision}/{digest(tokens)}-{of}.kept"
    before = _unpacked(names, tokens, shelf.recall(file) or {}) if also is None else None
    if before is not None:
        return before
    weights = yield from token_weights(checkpoint, layers, tokens, also)
    shelf.keep(file, _packed(names, weights))
    return weights


def token_weights(
    checkpoint: Checkpoint, layers: Iterable[Layer], tokens: Tensor, also: Hear | None = None
) -> Generator[Progress, None, dict[str, Tensor]]:
    """Yield while the model runs on ``tokens`` [W, T]; return each layer's weights, fp32 [W * T] of mean 1, by name.

    ``also`` is given each gradient as it comes. Layers that are not given every token once (experts), and those that
    no gradient comes to, are missing. Raises CheckpointError when a file is damaged.
    """
    model = BlockModel(checkpoint, fast_dtype())
    sums = _Sums(also)
    listen_to_gradients(model.model, layers, sums.hear)
    generator = torch.Generator().manual_seed(SEED)
    for lot in lots(checkpoint, tokens):
        sums.begin()
        yield from model.run_backward(lot, lambda logits: rademacher_gradient(logits, generator))
    return sums.weights(tokens.numel())


def _packed(names: Sequence[str], by_layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, each once, fp32 [O, W * T], and which of them each layer has, -1 for none."""
    shared = list({id(weights): weights for weights in by_layer.values()}.values())
    places = {id(weights): place for place, weights in enumerate(shared)}
    of = torch.tensor([places[id(by_layer[name])] if name in by_layer else -1 for name in names], dtype=torch.int64)
    return {"of": of, "weights": torch.stack(shared) if shared else torch.zeros(0, 0, dtype=torch.float32)}


def _unpacked(names: Sequence[str], tokens: Tensor, kept: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the weights by layer, the same tensor for layers given the same; None where they are not these layers'."""
    of, weights = kept.get("of"), kept.get("weights")
    if of is None or weights is None or of.shape != (len(names),) or weights.ndim != 2:
        return None
    shared = list(weights)
    places = of.tolist()
    if not all(-1 <= place < len(shared) for place in places) or (shared and weights.shape[1] != tokens.numel()):
        return None
    return {name: shared[place] for name, place in zip(names, places, strict=True) if place >= 0}


def rademacher_gradient(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return g = (diag √p - p √p^T) z [..., V] for p of ``logits`` [..., V] and random signs z.

    Its E[g g^T] is diag p - p p^T, as that of the gradient of -log p with respect to the logits is, for words drawn.
    """
    chances = logits.float().softmax(-1)
    signs = torch.randint(0, 2, chances.shape, generator=generator, dtype=torch.int8).to(chances.device)
    signed = chances.sqrt().mul_(signs.mul_(2).sub_(1))
    return signed.sub_(chances.mul_(signed.sum(-1, keepdim=True))).to(logits.dtype)


def lots(checkpoint: Checkpoint, tokens: Tensor) -> tuple[Tensor, ...]:
    """Return the windows [W, T] in lots of which everything that the blocks are given fits into memory."""
    width = next((layer.shape[-1] for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING), 1)
    blocks = len({layer.block for layer in checkpoint.layers})
    size = blocks * tokens.shape[1] * width * fast_dtype().itemsize
    return torch.split(tokens, max(1, STATES_BYTES // size))


class _Sums:
    """The squared gradient at each output, token by token, summed over the layers that are given the same."""

    def __init__(self, also: Hear | None = None) -> None:
        self._also = also
        self._squares: dict[str, list[Tensor]] = {}
        self._owners: dict[str, str] = {}
        self._last: tuple[Tensor, str] | None = None

    def begin(self) -> None:
        """Begin with other tokens."""
        for parts in self._squares.values():
            parts.append(torch.zeros((), dtype=torch.float32))

    def weights(self, tokens: int) -> dict[str, Tensor]:
        """Return what was found of as many tokens, in mean weights: the same tensor for layers given the same."""
        whole = {owner: torch.cat([part.reshape(-1) for part in parts]) for owner, parts in self._squares.items()}
        sound = {
            owner: squares / squares.mean() + LEAST
            for owner, squares in whole.items()
            if len(squares) == tokens and bool(squares.isfinite().all()) and bool(squares.mean() > 0)
        }
        return {name: sound[owner] for name, owner in self._owners.items() if owner in sound}

    def hear(self, name: str, given: Tensor) -> Gradient:
        """Return what adds a layer's gradient to those of the layers that were given the same right before it."""
        owner = self._last[1] if self._last is not None and self._last[0] is given else name
        self._last = given, owner
        self._owners[name] = owner
        self._squares.setdefault(owner, [torch.zeros((), dtype=torch.float32)])
        return partial(self._add, owner, name)

    def _add(self, owner: str, name: str, gradient: Tensor) -> None:
        if self._also is not None:
            self._also(name, gradient)
        parts = self._squares[owner]
        parts[-1] = parts[-1] + gradient.float().square().sum(-1).flatten()

"""Hears what a model's layers are given, and the gradients that come back to what they say.

One listener for activations, one for gradients; what is made of what they hear is the caller's. Hooks stay with the
model they were put on. Knows neither files nor schemes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from studio.checkpoint.layers import Layer

Made = TypeVar("Made")
Gradient = Callable[[Tensor], None]
"""Takes the gradient that came back to a layer's output, of that output's shape."""


class ActivationListener(Generic[Made]):
    """What was made of each layer's inputs, by its name: the same object for layers given the same (q, k and v)."""

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[Layer],
        make: Callable[[str, Tensor], Made],
        merge: Callable[[Made, Made], Made] | None = None,
        group: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``make(name, rows)`` is called with what a layer is given as rows [R, K]; ``merge`` joins what was made when
        it runs once more, without it the first time counts. Layers of different ``group`` share nothing."""
        self.heard: dict[str, Made] = {}
        self._make, self._merge, self._group = make, merge, group
        self._recent: dict[tuple[Any, ...], tuple[Tensor, Made]] = {}
        self._is_paused = False
        for layer in layers:
            _module_of(model, layer).register_forward_pre_hook(partial(self._hear, layer.name))

    def release(self) -> None:
        """Let go of the inputs themselves, kept so that those of q, k and v are known to be the same."""
        self._recent.clear()

    def forget(self) -> None:
        """Let go of everything heard."""
        self.heard.clear()
        self.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hear nothing within this context."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def _hear(self, name: str, _: nn.Module, given: tuple[Any, ...]) -> None:
        is_first = name not in self.heard
        if self._is_paused or not given or not given[0].numel() or (self._merge is None and not is_first):
            return
        made = self._made(name, given[0])
        self.heard[name] = made if is_first or self._merge is None else self._merge(self.heard[name], made)

    def _made(self, name: str, given: Tensor) -> Made:
        """Return what is made of ``given`` [..., K]: of the same memory, unchanged since, the same as before."""
        key = (given.data_ptr(), given.shape, given.stride(), given._version, self._group(name))
        if key not in self._recent:
            self._recent[key] = given, self._make(name, given.detach().reshape(-1, given.shape[-1]))
        return self._recent[key][1]


def listen_to_gradients(model: nn.Module, layers: Iterable[Layer], hear: Callable[[str, Tensor], Gradient]) -> None:
    """Call ``hear(name, given)`` whenever a layer runs with a gradient to come, and what it returns with that gradient.

    A pass without gradients, and a layer that is given nothing, is not heard.
    """

    def listen(name: str, _: nn.Module, given: tuple[Any, ...], said: Any) -> None:
        if given and given[0].numel() and isinstance(said, Tensor) and said.requires_grad:
            said.register_hook(hear(name, given[0]))

    for layer in layers:
        _module_of(model, layer).register_forward_hook(partial(listen, layer.name))


def _module_of(model: nn.Module, layer: Layer) -> nn.Module:
    return model.get_submodule(layer.name.rpartition(".")[0])

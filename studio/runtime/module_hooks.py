"""Units of transformers' modules, put in place, stood in for and stopped. Knows nothing of what is computed."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """What a unit was called with: what lets it run again."""

    unit: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def again(self) -> Any:
        """Run it on the same, without any hook of its own. Its weights have to be there."""
        return self.module.forward(*self.args, **self.kwargs)

    def input_gradient(self, gradient: Tensor) -> Tensor | None:
        """Return the gradient with respect to the hidden states it was given, from that with respect to its output.

        It runs again for that. None for a unit that is given no such states: an embedding.
        """
        floats = (i for i, arg in enumerate(self.args) if isinstance(arg, Tensor) and arg.is_floating_point())
        place = next(floats, None)
        given = self.kwargs.get("hidden_states") if place is None else self.args[place]
        if not isinstance(given, Tensor):
            return None
        given = given.detach().requires_grad_()
        args, kwargs = list(self.args), dict(self.kwargs)
        if place is None:
            kwargs["hidden_states"] = given
        else:
            args[place] = given
        with torch.enable_grad():
            output = self.module.forward(*args, **kwargs)
            output_states = output if isinstance(output, Tensor) else output[0]
            if output_states.shape != gradient.shape or not output_states.requires_grad:
                return None
            output_states.backward(gradient)
        return given.grad


def module_units(model: nn.Module, tensors: dict[str, Any]) -> dict[str, list[str]]:
    """Return the modules that are loaded as one -> the tensors each needs.

    They are the elements of outermost lists of modules, whole: within a block, code reads weights of modules that it
    never calls. Outside, every module that owns tensors stands for itself.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        steps = name.split(".")
        paths = [".".join(steps[:length]) for length in range(1, len(steps))]
        is_list = [isinstance(model.get_submodule(path), nn.ModuleList) for path in paths]
        elements = (path for path, parent, own in zip(paths[1:], is_list, is_list[1:], strict=False) if parent > own)
        units[next(elements, paths[-1] if paths else "")].append(name)
    return dict(units)


def put_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or buffer by its full name; the same object may be shared by several."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    holder: dict[str, Any] = module._buffers if leaf in module._buffers else module._parameters
    holder[leaf] = tensor


class DecoderEnded(BaseException):
    """The decoder has run; what comes after it need not."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


@contextmanager
def ended_by(decoder: nn.Module) -> Iterator[None]:
    """Raise DecoderEnded with the result when the decoder has run."""

    def end(module: nn.Module, arguments: Any, output: Any) -> None:
        raise DecoderEnded(output[0])

    handle = decoder.register_forward_hook(end)
    try:
        yield
    finally:
        handle.remove()


class GivenInput(tuple[Tensor]):
    """What a decoder returns, for code that wants its first item or ``last_hidden_state`` and lives without more."""

    def __getattr__(self, name: str) -> Tensor | None:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


@contextmanager
def standing_in(decoder: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Let the decoder return ``hidden`` without running."""
    decoder.forward = lambda *_, **__: GivenInput((hidden,))
    try:
        yield
    finally:
        del decoder.forward

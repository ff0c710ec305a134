"""A model run from disk, one block's weights in memory at a time. Knows nothing of architectures or schemes.

The model's own code runs, on weights that are not there: hooks load a unit (the modules whose weights are in memory
together: a block, the embedding, the head) just before it runs and drop it just after. Nothing is guessed of how the
blocks are wired (which mask, which rope, which state of an earlier block one is handed differs between blocks and
architectures), so the result is the whole model's, bit for bit. A forward pass cannot yield from within its hooks; it
runs in a thread that moves only while the reader waits for it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from studio.base.progress import Progress
from studio.base.steps import threaded
from studio.checkpoint.architecture import empty_model, load_config, untie
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.layers import Layer
from studio.runtime.module_hooks import Call, DecoderEnded, ended_by, module_units, put_parameter, standing_in

Transform = Callable[[Layer, Tensor], Tensor]
"""A layer and its tensor as :meth:`Checkpoint.read` gives it -> the one to compute with, of the same shape."""

Held = Callable[[Layer], Tensor | None]
"""A layer -> its tensor, of the layer's shape, where it is not to be read; with a graph, gradients go back into it."""

OutputHook = Callable[["Call", Callable[[], None], Any], Any]
"""A unit that has run, with its weights still there -> what goes on in place of its output. Given are its call, which
can run again, a function to be called between pieces of work (the reader may stop there), and its output."""

LogitGradient = Callable[[Tensor], Tensor]
"""Logits [1, T, V] of some positions -> the gradient of a loss with respect to them, of the same shape."""

STAGE = "blocks"
"""Of progress here: the detail is the module that is read or has run, ``"model.layers.3"``; weights are counted."""
HEAD_TOKENS = 64
"""Positions whose logits are made at once: 20 MB of bf16 with a vocabulary of 150,000."""
LOSS_TOKENS = 256
"""Likewise where there is a gradient, which takes a few times as much."""


class BlockModel:
    """A checkpoint that runs in ``dtype`` without being loaded.

    ``model`` is its module tree, with weights on the meta device but for the unit that runs: a caller's own hooks go
    there. One run at a time.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype = torch.bfloat16,
        transform: Transform | None = None,
        held: Held | None = None,
    ) -> None:
        """Build the tree. Raises CheckpointError when the config makes no model."""
        self.model = empty_model(load_config(read_json(checkpoint.path / CONFIG)), dtype)
        untie(self.model, {layer.name for layer in checkpoint.layers})
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._transform = transform
        self._held = held
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)
        self._empty: dict[str, Tensor] = self.model.state_dict(keep_vars=True)
        self._set_placeholder_parameter()
        self._layers = {name: layer for layer in checkpoint.layers for name in (layer.name, *layer.tied)}
        self.module_units = module_units(self.model, self._empty)
        paths = {module: path for path, module in self.model.named_modules()}
        self._inner = [unit for unit in self.module_units if f"{unit}.".startswith(f"{paths[self._decoder]}.")]

    def run(self, token_ids: Tensor, on_output: OutputHook | None = None) -> Generator[Progress, None, Tensor]:
        """Yield while units are read and when they have run; return what the head is given, [B, T, D] in the dtype.

        ``token_ids`` is [B, T] of int64, without padding. Closing the generator stops the run and gives everything
        back. Raises CheckpointError when a file is damaged.
        """
        total = sum(map(self._size, self._inner))

        def forward(report: Callable[[Progress], None]) -> Tensor:
            done = 0

            def read(unit: str) -> None:
                self._load(unit, lambda: report(Progress(STAGE, done, total, unit)))

            def ran(call: Call, output: Any) -> Any:
                nonlocal done
                unit = call.unit
                if on_output is not None:
                    output = on_output(call, lambda: report(Progress(STAGE, done, total, unit)), output)
                self._drop(unit)
                done = min(done + self._size(unit), total)  # some architectures run a block more than once
                report(Progress(STAGE, done, total, unit))
                return output

            try:
                with torch.no_grad(), self._hooked(read, ran), ended_by(self._decoder):
                    self.model(input_ids=token_ids, use_cache=False)
            except DecoderEnded as ended:
                return ended.hidden
            raise TypeError(f"{type(self.model).__name__} does not call its decoder")

        return (yield from threaded(forward))

    def run_backward(
        self, token_ids: Tensor, loss: LogitGradient, on_embedded: Callable[[Tensor], None] = lambda _: None
    ) -> Generator[Progress, None, None]:
        """Run the model on ``token_ids`` [B, T], then its units in turn from the last, each with gradients.

        ``loss`` says what comes back into the logits; ``on_embedded`` is given what comes back to the embedding's
        output, [B, T, D]. A caller's own hooks, on modules within the units, meet outputs that require a gradient the
        second time. What a unit was given is kept until then: [B, T, D] for each. A path between units other than their
        hidden states is left out. Yields and raises as :meth:`run` does.
        """
        total = 2 * sum(map(self._size, self._inner))

        def forward_and_backward(report: Callable[[Progress], None]) -> None:
            calls: list[Call] = []
            done = 0

            def finish_unit(unit: str, size: int) -> None:
                nonlocal done
                self._drop(unit)
                done = min(done + size, total)
                report(Progress(STAGE, done, total, unit))

            def read(unit: str) -> None:
                self._load(unit, lambda: report(Progress(STAGE, done, total, unit)))

            def ran(call: Call, output: Any) -> Any:
                calls.append(call)
                finish_unit(call.unit, self._size(call.unit))
                return output

            hidden = torch.empty(0, dtype=torch.float32)
            try:
                with torch.no_grad(), self._hooked(read, ran), ended_by(self._decoder):
                    self.model(input_ids=token_ids, use_cache=False)
            except DecoderEnded as ended:
                hidden = ended.hidden
            gradient: Tensor | None = self._head_gradient(
                hidden, loss, lambda: report(Progress(STAGE, done, total, calls[-1].unit))
            )
            while calls and gradient is not None:
                call = calls.pop()
                if call.module is self.model.get_input_embeddings():  # type: ignore[operator]
                    on_embedded(gradient)
                try:
                    read(call.unit)
                    gradient = call.input_gradient(gradient)
                finally:  # nothing may be said any more where the reader has gone
                    self._drop(call.unit)
                finish_unit(call.unit, self._size(call.unit))

        yield from threaded(forward_and_backward)

    def _head_gradient(self, hidden: Tensor, loss: LogitGradient, pause: Callable[[], None]) -> Tensor:
        """Return the gradient [B, T, D] with respect to what the head is given, [B, T, D]."""
        outer = [unit for unit in self.module_units if unit not in self._inner]
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        gradient = torch.empty_like(rows)
        try:
            for unit in outer:
                self._load(unit)
            for start in range(0, rows.shape[1], LOSS_TOKENS):
                pause()
                given = rows[:, start : start + LOSS_TOKENS].detach().requires_grad_()
                ids = torch.zeros(given.shape[:2], dtype=torch.long)
                with torch.enable_grad(), standing_in(self._decoder, given):
                    logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
                    # What is held may have a graph of its own, before that of these positions: the next go back there.
                    logits.backward(loss(logits.detach()), retain_graph=True)
                del logits  # and with it the graph of these positions
                assert given.grad is not None
                gradient[:, start : start + LOSS_TOKENS] = given.grad
        finally:
            for unit in outer:
                self._drop(unit)
        return gradient.reshape(hidden.shape)

    def logits(self, hidden: Tensor, tokens: int = HEAD_TOKENS) -> Generator[Tensor, None, None]:
        """Yield the logits [B, up to ``tokens``, V] of successive positions of :meth:`run`'s result [B, T, D].

        The head is in memory until the generator ends. What the model's own code does to logits (a cap, a factor) is
        done. Raises CheckpointError when a file is damaged.
        """
        outer = [unit for unit in self.module_units if unit not in self._inner]
        try:
            for unit in outer:
                self._load(unit)
            for start in range(0, hidden.shape[1], tokens):
                given = hidden[:, start : start + tokens]
                ids = torch.zeros(given.shape[:2], dtype=torch.long)
                with torch.no_grad(), standing_in(self._decoder, given):
                    logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
                yield logits
        finally:
            for unit in outer:
                self._drop(unit)

    @property
    def _decoder(self) -> nn.Module:
        """The module of the model that ends with the hidden states the head is given."""
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        base: Any = next(child for child in self.model.children() if embedding in child.modules())
        decoder: nn.Module = base.get_decoder()  # asked of it, not of the model: ModernBERT calls its head "decoder"
        return decoder

    def _set_placeholder_parameter(self) -> None:
        """Make the first parameter one NaN that claims its shape: some code asks it for the model's device."""
        name, empty = next((name, empty) for name, empty in self._empty.items() if isinstance(empty, nn.Parameter))
        nothing = torch.full((), torch.nan, dtype=empty.dtype).expand(empty.shape)
        self._empty[name] = nn.Parameter(nothing, requires_grad=False)
        put_parameter(self.model, name, self._empty[name])

    def _size(self, unit: str) -> int:
        return sum(self._layers[name].numel for name in self.module_units[unit])

    @contextmanager
    def _hooked(self, read: Callable[[str], None], ran: Callable[[Call, Any], Any]) -> Iterator[None]:
        """Call ``read`` before and ``ran`` after every unit of the decoder; in the end, drop what is still there.

        ``ran`` is given the unit's call and its output, which it may replace.
        """

        def hook(unit: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return ran(Call(unit, module, args, kwargs), output)

        handles = []
        for unit in self._inner:
            module = self.model.get_submodule(unit)
            handles.append(module.register_forward_pre_hook(lambda *_, unit=unit: read(unit), prepend=True))
            handles.append(module.register_forward_hook(partial(hook, unit), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for unit in self._inner:
                self._drop(unit)

    def _load(self, unit: str, pause: Callable[[], None] = lambda: None) -> None:
        """Read the tensors of a unit; ``pause`` is called before each, so that a reader may stop there."""
        read: dict[str, Tensor] = {}
        for name in self.module_units[unit]:
            layer = self._layers[name]
            if layer.name not in read:
                pause()
                read[layer.name] = self._tensor(layer)
            put_parameter(self.model, name, read[layer.name])

    def replace(self, layer: Layer, tensor: Tensor) -> None:
        """Let the model go on with ``tensor`` [N, K] (of experts [E, N, K]) as this weight, until its unit has run."""
        shaped = tensor.reshape(layer.shape).to(self._dtype)
        value = nn.Parameter((shaped.mT if layer.transposed else shaped).contiguous(), requires_grad=False)
        for name in (layer.name, *layer.tied):
            put_parameter(self.model, name, value)

    def _tensor(self, layer: Layer) -> Tensor:
        """Return a tensor as the model's code expects it."""
        held = None if self._held is None else self._held(layer)
        if held is not None:
            shaped = held.reshape(layer.shape).to(self._dtype)
            return shaped.mT if layer.transposed else shaped
        tensor = self._checkpoint.read(layer)
        if self._transform is not None:
            tensor = self._transform(layer, tensor)
        tensor = tensor.reshape(layer.shape).to(self._dtype)
        return nn.Parameter((tensor.mT if layer.transposed else tensor).contiguous(), requires_grad=False)

    def _drop(self, unit: str) -> None:
        for name in self.module_units[unit]:
            put_parameter(self.model, name, self._empty[name])

"""A config -> transformers' module tree without memory for its weights. Knows no files.

transformers and accelerate build such trees under context managers that swap process-wide state: torch's default dtype,
``nn.Module.register_parameter``, ``torch.nn.init``. Another visitor's thread would meanwhile get 16-bit buffers where
it asked for 32-bit ones. Here what is swapped belongs to the building thread alone: a mode of torch's that
sees its factory functions. This is the only place where the studio lets transformers make a module.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from studio.base.errors import CheckpointError
from studio.base.units import format_bytes
from studio.checkpoint.config import Task, task
from studio.checkpoint.file_names import CONFIG

META = torch.device("meta")
MAX_BUFFER_BYTES = 1 << 30
"""What a model may hold beside its weights."""


def module_tree(config: Any, attention: str, dtype: torch.dtype, has_buffers: bool = True) -> nn.Module:
    """Return the model of a config of ``load_config``: parameters on the meta device, buffers real, in evaluation mode.

    Buffers that name no dtype of their own (an embedding's factor, a table of positions) are in ``dtype``. Without
    ``has_buffers`` they stay on the meta device too. ``attention`` is transformers' ``attn_implementation``. Raises
    whatever transformers' own code does for a config that makes no sense.
    """
    import transformers

    of_task = {
        Task.DECODER: transformers.AutoModelForCausalLM,
        Task.ENCODER: transformers.AutoModelForMaskedLM,
        Task.ENCODER_DECODER: transformers.AutoModelForSeq2SeqLM,
        Task.BARE: transformers.AutoModel,
    }
    with _Weightless(dtype):
        model: nn.Module = of_task[task(config)].from_config(
            config,
            dtype=None,  # else torch's default dtype is swapped for everybody
            attn_implementation=attention,
            experts_implementation="eager",  # one expert after the other: the only way that packed ones can go
            trust_remote_code=False,
        )
    for part in _configs(config):
        part.dtype = dtype
    _check_buffers(model)
    if has_buffers:
        _fill_buffers(model)
    for module in model.modules():  # tables of positions whose code asks torch for its default dtype
        table = module._buffers.get("weights")
        if table is not None and hasattr(module, "make_weights"):
            module._buffers["weights"] = table.to(dtype)
    return model.eval()


def _check_buffers(model: nn.Module) -> None:
    """Raise CheckpointError for tables of a size that no weight tells, such as causal masks of all positions."""
    size = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if size > MAX_BUFFER_BYTES:
        limit = format_bytes(MAX_BUFFER_BYTES)
        raise CheckpointError("large_buffers", file=CONFIG, size=format_bytes(size), limit=limit)


class _Weightless(TorchFunctionMode):
    """While it is entered, this thread's new tensors lie on the meta device, floats without a dtype in ``dtype``.

    ``torch.device("meta")`` does not serve: it writes a global variable, and knows nothing of dtypes.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func not in _factories():
            return func(*args, **given)
        if given.get("device") is None:
            given["device"] = META
        made = func(*args, **given)
        has_dtype = given.get("dtype") is not None or any(hasattr(arg, "dtype") for arg in args)
        is_float = isinstance(made, Tensor) and made.dtype == torch.get_default_dtype()
        return made.to(self._dtype) if is_float and not has_dtype else made


@functools.cache
def _factories() -> frozenset[Callable[..., Any]]:
    """Return torch's functions that make a tensor of the default dtype on the default device."""
    made: list[Any] = [torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace]
    made += [torch.logspace, torch.rand, torch.randn, torch.randint, torch.randperm, torch.empty_strided]
    made += [torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.tril_indices, torch.triu_indices]
    made += [torch.bartlett_window, torch.blackman_window, torch.hamming_window, torch.hann_window, torch.kaiser_window]
    return frozenset(made)


def _configs(config: Any) -> Iterable[Any]:
    """Yield a config and those of its parts."""
    yield config
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if part is not None:
            yield part


def _fill_buffers(model: nn.Module) -> None:
    """Give every buffer that is on the meta device its numbers, as transformers does after loading weights.

    Raises ValueError for one that the model's own code has no numbers for. One that is stored with the weights may
    have none yet.
    """
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    stored = {id(buffer) for buffer in model.state_dict(keep_vars=True).values()}
    unfilled: dict[int, str] = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                real = torch.empty_like(buffer, device="cpu", dtype=buffer.dtype)
                if real.is_floating_point():
                    real.fill_(torch.nan)
                    if id(buffer) not in stored and real.numel():
                        unfilled[id(real)] = f"{path}.{name}"
                else:
                    real.zero_()
                module._buffers[name] = real
    with torch.no_grad():
        _initialize(model, model)
    for module in model.modules():
        for buffer in module._buffers.values():
            if buffer is not None and id(buffer) in unfilled and bool(buffer.isnan().all()):
                raise ValueError(f"no numbers for {unfilled[id(buffer)]}")


def _initialize(module: nn.Module, owner: Any) -> None:
    """Call ``_init_weights`` on every module, children first, that of the model within the model it belongs to.

    transformers' own ``initialize_weights`` does the same with ``torch.nn.init`` swapped for everybody.
    """
    from transformers import PreTrainedModel

    for child in module.children():
        _initialize(child, child if isinstance(child, PreTrainedModel) else owner)
    owner._init_weights(module)

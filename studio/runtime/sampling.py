"""How the next token is picked from a model's logits. Knows neither models nor texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.base.errors import PromptError

SAMPLING_LIMITS: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 1 << 20),
    "temperature": (0, 100),
    "top_p": (0.01, 1),
    "top_k": (0, 1 << 20),
    "repetition_penalty": (0.1, 10),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked; ``temperature`` 0 takes the likeliest, always the same.

    Raises PromptError for a value outside its limits.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in SAMPLING_LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # false for NaN too
                raise PromptError("sampling_range", name=name, value=value, low=low, high=high)


class Picker:
    """Picks each next token of one answer, by transformers' own warpers."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        """``prompt``: the ids before the answer, which the repetition penalty speaks of too."""
        from transformers.generation import logits_process as lp

        self._greedy = sampling.temperature == 0
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._penalty = sampling.repetition_penalty
        self._seen = set(prompt)
        self._warpers = lp.LogitsProcessorList()
        if not self._greedy:
            self._warpers.append(lp.TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k > 0:
                self._warpers.append(lp.TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self._warpers.append(lp.TopPLogitsWarper(sampling.top_p))

    def __call__(self, logits: Tensor) -> int:
        """Return a token picked from logits fp32 [V]."""
        from transformers.generation import logits_process as lp

        scores = logits.unsqueeze(0)
        if self._penalty != 1:
            seen = torch.tensor([sorted(self._seen)], dtype=torch.int64)
            scores = lp.RepetitionPenaltyLogitsProcessor(self._penalty)(seen, scores)
        if self._greedy:
            token = int(scores.numpy().argmax())  # a tenth of the time that torch's takes
        else:
            scores = self._warpers(None, scores)
            token = int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))
        self._seen.add(token)
        return token

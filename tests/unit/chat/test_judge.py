"""The original's opinion of an answer, against both models whole in memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from studio.chat.judge import judged, largest_part
from studio.checkpoint.checkpoint import of_folder
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.runtime.decoder import PrefixCache, open_compressed
from studio.runtime.model import load_original, load_tokenizer
from tests.conftest import save_tiny_model
from tests.steps import finish

PROMPT, SAID = [5, 9, 20, 31, 7], [12, 40, 41, 8, 8, 3]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_each_token_has_both_models_probabilities_and_their_divergence(tmp_path: Path, architecture: str) -> None:
    """The original in fp32 as torch computes it at once; the compressed one read in the same pieces, since bf16 rounds
    otherwise where more tokens are multiplied at once. Weights of some size, so that compressing them can be seen."""
    save_tiny_model(architecture, tmp_path / "tiny", initializer_range=0.3)
    checkpoint = of_folder(tmp_path / "tiny")
    plan = make_plan(checkpoint.layers, Choice.of("int4_sym", 32, 1, "int8_asym"))
    folder = write_folder(checkpoint, finish(compress(checkpoint, plan, tmp_path / "weights")), tmp_path / "made")
    decoder, tokenizer = open_compressed(folder), load_tokenizer(folder)
    model = load_original(checkpoint).float()

    # The greedy choice of the original at the second token, so that the first divergence is not the first token.
    said = [int(model(torch.tensor([PROMPT])).logits[0, -1].argmax()), *SAID]
    reference_score = finish(judged(checkpoint, decoder, tokenizer, PROMPT, said, PrefixCache(), 16, 1 << 30))

    ids = [*PROMPT, *said]
    with torch.no_grad():
        theirs = model(torch.tensor([ids[:-1]])).logits[0, len(PROMPT) - 1 :].double().log_softmax(-1)
    cache, start = decoder.begin(len(ids)), len(PROMPT) - 1
    decoder.forward_all(cache, ids[:start])
    ours = decoder.forward_all(cache, ids[start:-1]).double().log_softmax(-1)
    kl = (theirs.exp() * (theirs - ours)).sum(-1)
    assert [token.kl_divergence for token in reference_score.tokens] == pytest.approx(kl.tolist(), rel=1e-2, abs=1e-5)
    assert kl.max() > 1e-3  # there is something to be seen
    for i, (token, found) in enumerate(zip(said, reference_score.tokens, strict=True)):
        expected = [theirs[i, token].exp().item(), ours[i, token].exp().item()]
        assert found.probabilities == pytest.approx(expected, rel=1e-3)
        assert found.is_best == (int(theirs[i].argmax()) == token)
        assert found.best_probability == pytest.approx(theirs[i].max().exp().item(), rel=1e-3)
    assert reference_score.tokens[0].is_best
    assert reference_score.first_difference == next(i for i, t in enumerate(said) if int(theirs[i].argmax()) != t)
    assert reference_score.text == tokenizer.decode(said, skip_special_tokens=True)
    assert (
        "".join(reference_score.text[slice(*token.place)] for token in reference_score.tokens) == reference_score.text
    )


def test_the_pass_is_cancelled_between_parts(tiny_model: Any, tmp_path: Path) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    plan = make_plan(checkpoint.layers, Choice.of("int8_asym", -1, 1, "int8_asym"))
    folder = write_folder(checkpoint, finish(compress(checkpoint, plan, tmp_path / "weights")), tmp_path / "made")
    steps = judged(checkpoint, open_compressed(folder), load_tokenizer(folder), PROMPT, SAID, PrefixCache(), 16, 0)
    assert next(steps).done == 0
    steps.close()
    assert next(steps, None) is None
    assert largest_part(checkpoint) < checkpoint.weights

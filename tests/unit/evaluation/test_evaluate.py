"""An evaluation: exact against a direct computation, nothing for the same model, kept and sharpened as it runs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from studio.base.errors import ModelError
from studio.checkpoint.checkpoint import of_folder
from studio.evaluation.drift import drift
from studio.evaluation.evaluate import Original, evaluate, floor, predictor, text_windows
from studio.evaluation.figures import Evaluation, Tally
from studio.evaluation.questions import Question, options, questions
from studio.runtime.decoder import GeneralDecoder, open_compressed, open_original
from studio.runtime.model import load_compressed, load_original, load_tokenizer
from studio.session.session import Session
from tests.steps import finish

IDS = torch.arange(5 * 150).reshape(5, 150) * 7 % 200
ASKED = (Question("The capital of", ("France", "is Rome"), 0), Question("法国的", ("首都", "巴黎", "一"), 2, "zh"))


def in_pieces(logits: Tensor) -> Iterator[Tensor]:
    yield from logits.split(40)


def random_logits(seed: int) -> Tensor:
    return 3 * torch.randn(3, 150, 40, generator=torch.Generator().manual_seed(seed))


def test_figures_are_those_of_torch() -> None:
    ids = torch.randint(40, (3, 150), generator=torch.Generator().manual_seed(0))
    original, other = random_logits(1), random_logits(2)
    tally = Tally(3)
    for window, ours, theirs in zip(ids, original, other, strict=True):
        for _ in tally.add(window, in_pieces(ours), in_pieces(theirs)):
            pass
    found = tally.result()
    logs = [logits.log_softmax(-1) for logits in (original, other)]
    kld = kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(-1)
    assert found.kld.mean == pytest.approx(float(kld.mean()), rel=1e-5)
    assert found.kld.standard_error == pytest.approx(float(kld.mean(1).std()) / 3**0.5, rel=1e-4)
    assert found.kld_median == pytest.approx(float(kld.median()), rel=1e-5)
    assert found.kld_p99 == pytest.approx(float(kld.flatten().quantile(0.99)), rel=1e-5)
    same = original.argmax(-1) == other.argmax(-1)
    assert found.same_top.mean == pytest.approx(float(same.float().mean()))
    loss = cross_entropy(other[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert found.perplexity.mean == pytest.approx(float(loss.exp()), rel=1e-4)
    assert found.tokens == 450


def test_a_model_against_itself_loses_nothing_but_its_precision(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    found = finish(evaluate(checkpoint, predictor(GeneralDecoder(load_original(checkpoint).float())), IDS, ASKED))
    assert found.kld.mean < 1e-6
    assert found.same_top.mean == 1
    assert found.flips is not None
    assert (found.flips.questions, found.flips.flipped) == (2, 0)
    lowest = finish(floor(checkpoint, IDS))
    assert 0 < lowest.kld.mean < 1e-3


def test_the_first_figure_comes_after_one_window_and_each_one_sharpens_it(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    every = list(evaluate(checkpoint, predictor(open_original(checkpoint)), IDS, ()))
    assert every[0] is None
    steps: list[Evaluation] = [step for step in every if step is not None]
    done = [step.done for step in steps]
    assert done[0] == 1
    assert sorted(set(done)) == [1, 2, 3, 4, 5]
    assert done == sorted(done)
    assert steps[0].kld.standard_error is None
    assert steps[-1].kld.standard_error is not None


def test_the_original_is_run_once_for_a_text(
    tiny_model: Callable[[str], Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    first = finish(Original(checkpoint).hidden(IDS))
    again = Original(checkpoint)
    monkeypatch.setattr(again._model, "run", lambda ids: pytest.fail("it ran again"))
    assert torch.equal(finish(again.hidden(IDS)), first)
    (file,) = (own_cache / "hidden").rglob("*.kept")
    file.write_bytes(file.read_bytes()[:100])  # cut short: made again
    assert torch.equal(finish(Original(checkpoint).hidden(IDS)), first)


def test_a_model_that_is_no_language_model_is_not_evaluated(tiny_model: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError) as caught:
        finish(evaluate(replace(of_folder(tiny_model("llama")), can_chat=False), lambda ids: iter([ids]), IDS))
    assert caught.value.key == "no_language_model"


def test_likelihoods_are_those_of_each_option_alone(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    predict = predictor(GeneralDecoder(load_original(checkpoint).float()))
    tried = options(checkpoint, ASKED)
    (batch,) = tried.batches
    for option in batch:
        log = torch.cat(list(predict(option.ids))).log_softmax(-1)
        coming = log.gather(1, option.ids.roll(-1).unsqueeze(1)).squeeze(1)
        places = range(option.start, len(option.ids))
        expected = torch.stack([log[place - 1, option.ids[place]] for place in places]).mean()
        assert option.likelihood(coming) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "phi3"])
def test_what_a_chat_answers_with_is_judged_as_the_modules_are(
    tiny_model: Callable[[str], Path], own_cache: Path, architecture: str
) -> None:
    """The packed weights and the compiled kernel, against transformers' modules on the same numbers."""
    session = Session(paths=True)
    checkpoint = finish(session.open(str(tiny_model(architecture))))
    finish(session.compress())
    assert session.copy.folder is not None
    fast, plain = open_compressed(session.copy.folder), GeneralDecoder(load_compressed(session.copy.folder).float())
    assert fast.backend is not plain.backend
    ours, theirs = (finish(evaluate(checkpoint, predictor(decoder), IDS, ASKED)) for decoder in (fast, plain))
    session.close()
    assert ours.kld.mean == pytest.approx(theirs.kld.mean, rel=0.02)
    assert ours.perplexity.mean == pytest.approx(theirs.perplexity.mean, rel=1e-3)
    assert ours.same_top.mean == pytest.approx(theirs.same_top.mean, abs=0.01)
    assert ours.flips is not None
    assert theirs.flips is not None
    assert ours.flips.original_right == theirs.flips.original_right


def test_drift_ends_with_the_floor_and_keeps_the_states_of_both_precisions(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    predict = predictor(open_original(checkpoint))
    steps = list(drift(checkpoint, predict, IDS, "mine.txt"))
    assert steps[0].evaluation is None
    assert [step.fraction for step in steps] == sorted(step.fraction for step in steps)
    whole = finish(drift(checkpoint, predict, IDS, "mine.txt"))
    assert whole.is_whole
    assert whole.text == "mine.txt"
    assert whole.floor is not None
    assert whole.floor.tokens == 3 * IDS.shape[1]
    kept = [file.name for file in (own_cache / "hidden").rglob("*.kept")]
    assert sum("bfloat16" in name for name in kept) == 2


def test_windows_are_as_long_as_the_model_reads_and_the_texts_take_turns(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("gpt2"))
    found = text_windows(checkpoint)
    assert found.shape[1] == 256
    finish(evaluate(checkpoint, predictor(open_original(checkpoint)), found[:1], ()))
    english, chinese = (load_tokenizer(checkpoint.path).decode(window) for window in found[:2])
    assert english.isascii()
    assert not chinese.isascii()


def test_flips_count_answers_that_change_whether_right_or_wrong(tiny_model: Callable[[str], Path]) -> None:
    tried = options(of_folder(tiny_model("llama")), ASKED)
    found = tried.flips([0.0, 1, 0, 0, 1], [1.0, 0, 0, 0, 1])
    assert (found.questions, found.flipped, found.right, found.original_right) == (2, 1, 2, 1)


def test_built_in_questions_are_many_and_their_right_answers_stand_at_every_place() -> None:
    asked = questions()
    assert [sum(q.language == language for q in asked) for language in ("en", "zh")] == [40, 40]
    assert {q.answer for q in asked} == {0, 1, 2, 3}
    assert all(len(set(q.options)) == 4 for q in asked)
    assert len({q.text for q in asked}) == 80

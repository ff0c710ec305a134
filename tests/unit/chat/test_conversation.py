"""A conversation as the models hear it: what is read once is not read again."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.chat.answer import LoadedModel, Reply, answer
from studio.chat.columns import original_column
from studio.chat.conversation import Conversation
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import of_folder
from studio.runtime.decoder import GeneralDecoder, PrefixCache
from studio.runtime.sampling import Sampling
from tests.conversations import BOOK, LONG, last, user


def logits_of(reply: Reply) -> Tensor:
    """Return what an answer's last token was picked from."""
    assert reply.newest is not None
    assert reply.newest.logits is not None
    return reply.newest.logits


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_conversation_that_goes_on_says_what_a_fresh_one_does(loaded: LoadedModel, bits: int) -> None:
    """The next turn, the same turn again, and the last message edited; each against a reading from the beginning."""
    read, counted = PrefixCache(), loaded.decoder
    first = last(answer(loaded, user(BOOK), LONG, bits, read))
    for words in ((BOOK, first.text, "And then?"), (BOOK, first.text, "And then?"), (BOOK, first.text, "four ten?")):
        fresh = last(answer(loaded, user(*words), LONG, bits))
        counted.tokens = 0  # type: ignore[attr-defined]
        reply = last(answer(loaded, user(*words), LONG, bits, read))
        assert reply.text == fresh.text
        assert reply.kept_tokens >= 128
        assert counted.tokens == reply.prompt_tokens - reply.kept_tokens + reply.tokens - 1  # type: ignore[attr-defined]
        assert torch.equal(logits_of(reply), logits_of(fresh))


def test_another_width_or_conversation_is_read_from_the_beginning(loaded: LoadedModel) -> None:
    read = PrefixCache()
    last(answer(loaded, user(BOOK), LONG, 16, read))
    assert last(answer(loaded, user("Paris " + BOOK), LONG, 16, read)).kept_tokens < 10
    if 8 in loaded.decoder.kv_bits:
        assert last(answer(loaded, user("Paris " + BOOK), LONG, 8, read)).kept_tokens == 0


def test_a_model_that_keeps_a_state_reads_all_again_and_says_the_same(tmp_path: Path) -> None:
    import transformers as tf

    torch.manual_seed(0)
    config = tf.MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=2, vocab_size=400, eos_token_id=None)
    decoder = GeneralDecoder(tf.MambaForCausalLM(config).eval())
    read, ids = PrefixCache(), [5 + i % 90 for i in range(200)]

    def logits(read: PrefixCache) -> torch.Tensor:
        kept = read.begin(decoder, ids, 256, 16)
        for start in range(kept, len(ids), 128):
            found = read.step(decoder, ids[start : start + 128])
        return found

    first = logits(read)
    read.step(decoder, [9])
    assert torch.equal(logits(read), first)


def test_a_message_asked_anew_takes_the_place_of_the_last_with_another_seed(folder: Path) -> None:
    talk, checkpoint, pool = Conversation(), of_folder(folder), Pool()
    columns = [lambda: original_column(checkpoint)]
    warm = Sampling(max_new_tokens=12, temperature=2.0)

    def ask(prompt: str, again: bool = False) -> str:
        list(talk.answer(pool, columns, prompt, warm, again=again))
        assert talk.last is not None
        return talk.last.answers.replies[0].text

    ask("one")
    first = ask("two")
    assert ask("two", again=True) != first
    assert [turn.prompt for turn in talk.turns] == ["one", "two"]
    ask("three", again=True)
    assert [turn.prompt for turn in talk.turns] == ["one", "three"]
    assert [message["content"] for message in talk.messages(0)[::2]] == ["one", "three"]

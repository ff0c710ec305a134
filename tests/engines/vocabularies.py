"""Small tokenizers of every kind that GGUF files are written of, trained here, and words that tokenizers differ in.

Those of SentencePiece's kind have what transformers' converters give them: a merge for every pair of tokens whose
joined text is a token.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import transformers as tf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from studio.export.gguf.splits import GPT4O_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT, SPACE, TEKKEN_SPLIT
from tests.conftest import SENTENCES, TEMPLATE

HARD = (
    "Hello world, don't: it's we'll they've I'M I'D you'RE",
    "1 12 123 1234 12345 1234567 3.14 1e-5 0x1F 2026-11-30 ١٢٣ ½ ²",
    "你好，世界！这是一个测试。これはテスト 한국어",
    "😀 👩\u200d🚀 🇫🇷 👍🏽 ❤️",
    " leading", "  two", "a  b   c    d", "trailing  ", " ", "   ", "\t", "\t\tx\t y",
    "\n", "\n\n", "a\n\n\nb\r\n c\n  d\n", "x \n y  \n\n  z",
    "über naïve café Ångström ÇĞİŞ Привет мир שלום العربية ไทย हिन्दी",
    "snake_case camelCase HTTPServer x=y+1; a->b && !c || {d: [e]} <f/> #g @h $i %j ^k ~l `m`",
    "…“quotes”—dash\u00a0nbsp\u200bzero\ufeffbom\u3000wide",
    "The capital of France is Paris, and that of Italy is Rome.",
    "", "a", "'s", "' s", "''", "\u2581", "x\u2581y", "\x00\x01\x7f", "𝔘𝔫𝔦 𠜎",
)  # fmt: skip
"""Numbers, apostrophes, Chinese, emoji, runs of spaces, newlines, signs; characters composed as NFC composes them."""
WORDS = (*SENTENCES, *(each for each in HARD if "\0" not in each)) * 3  # a text that is read ends at a zero
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
TURNS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|end|>")


def byte_level(pre: Any, ignore_merges: bool = False, nfc: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=[*SPECIAL[1:]], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.model.ignore_merges = ignore_merges
    return tokenizer


def split(pattern: str) -> Any:
    isolated = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return tokens and merges of SentencePiece's kind, bytes among them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{each:02X}>" for each in range(256)]
    tokenizer.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(vocab_size=560, special_tokens=[*SPECIAL, *bytes_], show_progress=False, limit_alphabet=90),
    )
    vocab = tokenizer.get_vocab()
    merges = [
        (token[:at], token[at:])
        for token in sorted(vocab, key=vocab.__getitem__)
        if token not in {*SPECIAL, *bytes_}
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    return vocab, merges


def old_llama() -> Any:
    """Return Llama 2's as transformers 4 wrote it, and as most files on the Hub have it."""
    vocab, merges = pieces()
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return tokenizer


def new_llama() -> Any:
    vocab, merges = pieces()
    return tf.LlamaTokenizer(vocab=vocab, merges=merges, unk_token="<unk>")


def gemma() -> Any:
    vocab, merges = pieces()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": None}
    return tf.GemmaTokenizer(vocab=vocab, merges=merges, **names)


TOKENIZERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "gpt-2": ("gpt-2", lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))),
    "smollm": (
        "smollm",
        lambda: byte_level(
            pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        ),
    ),
    "llama-3": ("llama-bpe", lambda: byte_level(split(LLAMA3_SPLIT), ignore_merges=True)),
    "llama-3-merging": ("smaug-bpe", lambda: byte_level(split(LLAMA3_SPLIT))),
    "qwen2": ("qwen2", lambda: byte_level(split(QWEN2_SPLIT), nfc=True)),
    "llama": ("default", old_llama),
    "llama-metaspace": ("default", new_llama),
    "gemma": ("default", gemma),
}
"""A name -> what llama.cpp calls its way of splitting, and how it is made."""

ALMOST: dict[str, Callable[[], Any]] = {
    "tekken": lambda: byte_level(split(TEKKEN_SPLIT), ignore_merges=True),
    "gpt-4o": lambda: byte_level(split(GPT4O_SPLIT)),
}
"""Those whose name is only offered, by it."""


@cache
def made(name: str) -> Any:
    """Return a tokenizer as transformers has it, with what begins and ends turns among its tokens."""
    found = ALMOST[name]() if name in ALMOST else TOKENIZERS[name][1]()
    if isinstance(found, Tokenizer):
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        unknown = {"unk_token": "<unk>"} if name == "llama" else {}
        found = tf.PreTrainedTokenizerFast(tokenizer_object=found, **names, **unknown)
    found.add_tokens([AddedToken(each, special=True, normalized=False) for each in TURNS])
    found.pad_token = "<pad>"
    found.chat_template = TEMPLATE
    return found

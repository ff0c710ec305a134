"""How a tokenizer splits words, and llama.cpp's name for it. Reads JSON alone; knows no vocabulary.

llama.cpp knows a way of splitting by a name (``tokenizer.ggml.pre``) and has a program of its own for each. A name is
taken without a word where both give the same tokens, which the tests prove in llama.cpp; any other is only offered.
"""

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

from studio.base.errors import ModelError, SchemeError

SPACE = "\u2581"
"""SentencePiece's sign for one."""
PREPENDED = {"type": "Prepend", "prepend": SPACE}
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = _WORDS + r"\p{N}{1,3}" + _OTHERS
QWEN2_SPLIT = _WORDS + r"\p{N}" + _OTHERS
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%(short)s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%(short)s|%(digits)s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = _CASED % {"short": "", "digits": r"\p{N}"}
GPT4O_SPLIT = _CASED % {"short": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "digits": r"\p{N}{1,3}"}
SPLITS = {
    ("bytes",): "gpt-2",
    ("digits", "bytes"): "smollm",
    (GPT2_SPLIT,): "gpt-2",
    (LLAMA3_SPLIT,): "llama-bpe",
    (QWEN2_SPLIT,): "qwen2",
}
"""How words are split -> llama.cpp's name for it; ``bytes`` is the pattern that the byte-level step has itself."""
ALMOST = {(TEKKEN_SPLIT,): "tekken", (GPT4O_SPLIT,): "gpt-4o"}
"""The same where llama.cpp's program is another one: it has no class for marks, so Hindi, for one, reads otherwise."""
MERGING = "smaug-bpe"
"""Llama 3's way of splitting, for a tokenizer that reaches a whole word by its merges only (no ``ignore_merges``)."""
IGNORING = ("llama-bpe", "tekken")
"""Names under which llama.cpp takes a word that is a token as it stands, whatever the merges say."""
SENTENCEPIECE = "default"
"""The one name where words are not split at all."""
NAMES = (*dict.fromkeys((*SPLITS.values(), *ALMOST.values(), MERGING)),)
"""Names that can be asked for by a byte-level tokenizer."""


def split_name(file: Mapping[str, Any], named: str | None) -> str:
    """Return llama.cpp's name of how a byte-level tokenizer splits words, or the one that was ``named``.

    Raises ModelError, with the nearest name, where it has none; SchemeError for a name that it does not know.
    """
    if named is not None:
        return _asked(named, NAMES)
    ways, odd = _ways(file)
    name = SPLITS.get(ways)
    ignores = bool(file["model"].get("ignore_merges"))
    if name == "llama-bpe" and not ignores:
        name = MERGING
    if odd is None and ignores and name not in IGNORING:
        odd = "ignore_merges"
    if name is None or odd is not None:
        raise ModelError("to_gguf_pre_tokenizer", found=(odd or " ".join(ways))[:60], nearest=nearest(ways))
    return name


def check_sentencepiece(file: Mapping[str, Any], named: str | None) -> None:
    """Raise ModelError where a text is changed or split otherwise than by writing its spaces as signs."""
    if named is not None:
        _asked(named, (SENTENCEPIECE,))
        return
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    parts = [
        *(each for each in steps(file, "normalizer", "normalizers") if each not in (spaces, PREPENDED)),
        *(each for each in steps(file, "pre_tokenizer", "pretokenizers") if not _is_by_spaces(each)),
    ]
    for each in parts:
        raise ModelError("to_gguf_pre_tokenizer", found=str(each.get("type"))[:60], nearest=SENTENCEPIECE)
    if not _is_closed(file["model"]):
        raise ModelError("to_gguf_pre_tokenizer", found="merges", nearest=SENTENCEPIECE)


def nearest(ways: tuple[str, ...]) -> str:
    """Return the name whose way of splitting is written most like this one."""
    words = " ".join(ways)[:2000]
    known = ALMOST | SPLITS
    return max(known.items(), key=lambda each: SequenceMatcher(None, words, " ".join(each[0]), False).ratio())[1]


def steps(file: Mapping[str, Any], name: str, plural: str) -> list[Mapping[str, Any]]:
    """Return what is done one after another."""
    found = file.get(name)
    return [] if found is None else list(found.get(plural, [found]))


def _asked(named: str, names: tuple[str, ...]) -> str:
    if named not in names:
        raise SchemeError("unknown_pre_tokenizer", name=named[:40], names=", ".join(names))
    return named


def _ways(file: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Return the steps by which words are split, and what of the tokenizer is like none that llama.cpp has."""
    odd: list[str] = []
    if file.get("normalizer") not in (None, {"type": "NFC"}):
        odd.append(str(file["normalizer"].get("type")))
    ways: list[str] = []
    has_bytes = False
    for part in steps(file, "pre_tokenizer", "pretokenizers"):
        kind = part.get("type")
        if kind == "ByteLevel":
            has_bytes = True
            if part.get("add_prefix_space", True):
                odd.append("add_prefix_space")
            if part.get("use_regex", True):
                ways.append("bytes")
        elif kind == "Digits" and part.get("individual_digits"):
            ways.append("digits")
        elif kind == "Split" and "Regex" in part["pattern"]:
            ways.append(part["pattern"]["Regex"])
            if not _keeps_all(part):
                odd.append(str(part.get("behavior")))
        else:
            odd.append(str(kind))
    if not has_bytes:
        odd.append("ByteLevel")
    return tuple(ways), odd[0] if odd else None


def _keeps_all(split: Mapping[str, Any]) -> bool:
    """Return whether a split leaves each match a word of its own; what it would remove of the rest is nothing."""
    behavior, inverted = split.get("behavior"), bool(split.get("invert"))
    return (behavior, inverted) in (("Isolated", False), ("Removed", True))


def _is_by_spaces(step: Mapping[str, Any]) -> bool:
    """Return whether words are split where their first sign is a space, as scores alone would have it."""
    if step.get("type") == "Metaspace":
        return bool(step.get("replacement", SPACE) == SPACE)
    return step.get("type") == "Split" and step.get("pattern") == {"String": " "}


def _is_closed(model: Mapping[str, Any]) -> bool:
    """Return whether nearly all pairs of tokens whose joined text is a token are merges.

    llama.cpp has no merges here: it joins any such pair. A tokenizer converted from SentencePiece has them all but
    those of added words; one that was trained by merges has a third of them, and would give other tokens.
    """
    vocab: Mapping[str, int] = model["vocab"]
    merges = {each if isinstance(each, str) else " ".join(each) for each in model["merges"]}
    pairs = (
        f"{token[:at]} {token[at:]}"
        for token in vocab
        if not token.startswith("<0x")
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    )
    there = [pair in merges for pair in pairs]
    return sum(there) >= 0.9 * len(there)

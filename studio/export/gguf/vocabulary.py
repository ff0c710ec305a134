"""A tokenizer's files -> what a GGUF file says of its tokens. Reads JSON alone; runs no tokenizer.

llama.cpp has two kinds: byte-level BPE ("gpt2"), whose way of splitting words it knows by a name, and SentencePiece
("llama"), whose merges it finds again by each token's score. Which name a tokenizer has follows from how its own file
says that words are split: anything else would give other tokens without a word, and is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.file_names import GENERATION
from studio.checkpoint.json_file import read_json
from studio.checkpoint.stop_tokens import stop_ids
from studio.export.gguf.splits import SENTENCEPIECE, SPACE, check_sentencepiece, split_name, steps

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
TOKENIZER_FILES = (TOKENIZER, SETTINGS, TEMPLATE, GENERATION)
"""All that is read beside the config."""
KNOWN_ENDS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "<|end_of_text|>")
)
"""Texts at which llama.cpp ends an answer whatever a file says (``llama-vocab.cpp``)."""
ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
MAX_VALUES = 6_000_000
"""Of a tokenizer's file: vocabularies of 262,144 tokens have half a million merges, of which each counts for three."""
DAMAGE = (AttributeError, IndexError, KeyError, TypeError, UnicodeError, ValueError)
"""What reading anything but a tokenizer's file ends in."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a GGUF file says it."""

    model: str
    """``gpt2`` or ``llama``."""
    pre: str
    tokens: list[str]
    types: list[int]
    """Of :class:`gguf.TokenType`."""
    merges: list[str]
    scores: list[float] | None
    ids: Mapping[str, int]
    """Special tokens by llama.cpp's name: ``bos``, ``eos``, ``eot``, ``unk``, ``pad``."""
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    """Whether a text's first word is taken to follow a space."""
    template: str | None

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Write it as metadata."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges and self.model == "gpt2":
            writer.add_token_merges(self.merges)
        for name, index in self.ids.items():
            getattr(writer, f"add_{name}_token_id")(index)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if self.model == "llama":
            writer.add_add_space_prefix(self.adds_space)
        if self.template is not None:
            writer.add_chat_template(self.template)


def read_vocabulary(folder: Path, config: Any, pre: str | None = None) -> Vocabulary:
    """Return the vocabulary of a model's folder, filled up to as many tokens as its embedding has.

    ``pre`` names the way of splitting words that somebody chose although it is not the tokenizer's own.
    Raises ModelError for a tokenizer that llama.cpp has not, CheckpointError for files that are damaged.
    """
    file = read_json(folder / TOKENIZER, MAX_VALUES)
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    try:
        return _vocabulary(file, settings, folder, config, pre)
    except DAMAGE as error:
        raise CheckpointError("damaged_file", file=TOKENIZER) from error


def _vocabulary(
    file: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, config: Any, pre: str | None
) -> Vocabulary:
    size = int(config.vocab_size)
    model = file["model"]
    if model.get("type", "BPE") != "BPE":
        raise ModelError("to_gguf_tokenizer", kind=str(model.get("type"))[:40])
    is_sentencepiece = bool(model.get("byte_fallback"))
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ModelError("to_gguf_tokenizer", kind="BPE, affixes of words")
    if is_sentencepiece:
        check_sentencepiece(file, pre)
    tokens, types = _tokens(file, size, is_sentencepiece)
    pairs = [_pair(each) for each in model["merges"]]
    template = _template(folder, settings)
    for words in (*tokens, template or ""):
        words.encode()  # half a character is none: it cannot be written
    by_name = {token: index for index, token in enumerate(tokens)}
    return Vocabulary(
        model="llama" if is_sentencepiece else "gpt2",
        pre=SENTENCEPIECE if is_sentencepiece else split_name(file, pre),
        tokens=tokens,
        types=types,
        merges=[" ".join(pair) for pair in pairs],
        scores=_scores(tokens, types, pairs) if is_sentencepiece else None,
        ids=_special(settings, config, folder, by_name),
        adds_bos=_adds(file, settings, "bos"),
        adds_eos=bool(settings.get("add_eos_token", False)),
        adds_space=is_sentencepiece and _adds_space(file, settings),
        template=template,
    )


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge if isinstance(merge, list) else merge.split(" ")
    return first, second


def _tokens(file: Mapping[str, Any], size: int, has_bytes: bool) -> tuple[list[str], list[int]]:
    """Return every token and its type. Raises ValueError for a text that stands for two: llama.cpp would end there."""
    kind = gguf.TokenType
    vocab: dict[str, int] = file["model"]["vocab"]
    added = {each["id"]: each for each in file.get("added_tokens") or []}
    known = {index: token for token, index in vocab.items()} | {i: each["content"] for i, each in added.items()}
    if not all(type(index) is int and index >= 0 for index in (*vocab.values(), *added)):
        raise ValueError("a token's number is none")
    over = [index for index in known if index >= size]
    if over:
        raise ModelError("to_gguf_tokens", count=len(known), size=size)
    there = set(known.values())
    if len(there) != len(known):
        raise ValueError("a text stands for two tokens")
    unknown = (file.get("model") or {}).get("unk_token")
    tokens, types = [], []
    for index in range(size):
        token = known.get(index)
        if token is None:  # an embedding may have more rows than there are tokens
            name = f"[PAD{index}]"
            while name in there:
                name += "_"
            tokens.append(name)
            types.append(int(kind.UNUSED))
            continue
        each = added.get(index)
        if has_bytes and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            what = kind.BYTE
        elif token == unknown and has_bytes:
            what = kind.UNKNOWN
        elif each is not None:
            what = kind.CONTROL if each.get("special") else kind.USER_DEFINED
        else:
            what = kind.NORMAL
        if each is not None and not each.get("special") and has_bytes and token.replace(SPACE, " ") not in there:
            token = token.replace(SPACE, " ")
        tokens.append(token)
        types.append(int(what))
    read = [token.partition("\0")[0] for token in tokens]  # as llama.cpp reads them
    if len(set(filter(None, read))) != sum(map(bool, read)):
        raise ValueError("a text stands for two tokens")
    return tokens, types


def _scores(tokens: list[str], types: list[int], merges: list[tuple[str, str]]) -> list[float]:
    """Return a score for each token, from which llama.cpp finds the merges in their order again."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    last = float(len(merges))
    unranked = (gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.UNKNOWN)
    pairs = zip(tokens, types, strict=True)
    return [0.0 if kind in unranked else -float(ranks.get(token, last)) for token, kind in pairs]


def _special(settings: Mapping[str, Any], config: Any, folder: Path, by_name: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in ("bos", "unk", "pad"):
        index = by_name.get(_content(settings.get(f"{name}_token")), getattr(config, f"{name}_token_id", None))
        if type(index) is int and 0 <= index < len(by_name):
            found[name] = index
    ends = [each for each in sorted(stop_ids(folder, config)) if 0 <= each < len(by_name)]
    own = by_name.get(_content(settings.get("eos_token")))
    if own is not None or ends:
        found["eos"] = ends[0] if own is None else own
    turn = next((by_name[name] for name in ENDS_OF_TURN if name in by_name), None)
    if turn is not None:
        found["eot"] = turn
    return found | _other_ends(ends, found, by_name)


def _other_ends(ends: list[int], found: Mapping[str, int], by_name: Mapping[str, int]) -> dict[str, int]:
    """Return places for the tokens that end an answer and that llama.cpp does not know as such by their texts.

    A file has three: of the end of a text, of a turn and of a message. Raises ModelError for more.
    """
    known = {by_name[name] for name in KNOWN_ENDS if name in by_name} | {found.get("eos")}
    unknown = [each for each in ends if each not in known]
    if len(unknown) > 2:
        raise ModelError("to_gguf_ends", count=len(unknown) + 1)
    places = ("eom", "eot") if "eot" in found else ("eot", "eom")  # a turn's end is known by its text
    return dict(zip(places, unknown, strict=False))


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the text of the chat template, which nobody renders here."""
    alone = folder / TEMPLATE
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, Mapping)}
    if isinstance(found, Mapping):
        found = found.get("default", next(iter(found.values()), None))
    return found if isinstance(found, str) else None


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, Mapping) else token if isinstance(token, str) else ""


def _adds(file: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> bool:
    """Return whether a text is begun by a token of this name."""
    said = settings.get(f"add_{name}_token")
    if isinstance(said, bool):
        return said
    parts = steps(file, "post_processor", "processors")
    token = _content(settings.get(f"{name}_token"))
    singles = [part.get("single", []) for part in parts if part.get("type") == "TemplateProcessing"]
    return any((each.get("SpecialToken") or {}).get("id") == token for single in singles for each in single[:1])


def _adds_space(file: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    parts = steps(file, "normalizer", "normalizers")
    if any(part.get("type") == "Prepend" for part in parts):
        return True
    for step in steps(file, "pre_tokenizer", "pretokenizers"):
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
    return bool(settings.get("add_prefix_space", False)) and not parts

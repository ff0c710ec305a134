"""The table of families, ``python -m tests.families.table``: how far the studio's answers are from transformers'.

Writes docs/families.md. A family that is refused has the sentence instead.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import transformers
from transformers.utils import logging

from studio.base.errors import UserError
from studio.runtime.decoder.open_decoder import open_compressed, open_original
from tests.families import agree
from tests.families.families import FAMILIES, TEXT_TWINS, bound, bound_of_int8, opened
from tests.families.tiny import VOCABULARY

FILE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
HEAD = """# Families of models, and how far their answers are from transformers'

Every language model that transformers {version} names, and text parts of models that also see, as a tiny model of
random weights. Figures are relative errors of the centred logits of {tokens} tokens against transformers itself in fp32
(`sdpa` attention, or eager where a family has no other; Falcon's ALiBi agrees with `sdpa`, not with its eager form).
*bf16 alone* is what transformers itself loses by computing in bf16, as the studio does. *Whole* reads the text in
pieces of 128, as a chat reads a prompt; *steps* reads 128 tokens and then one at a time. int8 is `int8_asym`, every
weight of the model. Random weights are unkind to experts: a router between two may go either way for some tokens.

Bounds: in fp32, where the tests let the studio compute so, 0.005, in odd pieces, token by token and block by block from
disk; at 16 bits 0.05 + 2 x bf16 alone; at int8 0.05 + 4 x bf16 alone. The command fails where a row is beyond. The
tests take the token in the middle at int8, since one whose router flips would decide.

Rotations that follow the length of the text are read as transformers reads them: a prompt is rotated for its whole
length, and each token of an answer for the length by then. With dynamic NTK the keys of earlier tokens keep the
rotation of their time, as they do in transformers' `generate`. With longrope a text that crosses the original length is
read again from its start with the long factors, as Phi-3's `generate` does; that one step takes as long as the prompt.
Every text begins from the config's own frequencies, where transformers goes on with the longest that it has met.

Mamba, Falcon-Mamba, Jamba, Zamba, RecurrentGemma and MiniMax are read one token at a time after the first piece, for
transformers' code cannot continue their state otherwise. GPT-1 keeps no state: every token reads the text again.

| family | bf16 alone | whole | steps | int8 whole | int8 steps |
| --- | --- | --- | --- | --- | --- |
"""


def row(family: str, folder: Path) -> str:
    """Return a family's row."""
    try:
        one = opened(family, folder / "model")
    except UserError as refusal:
        return f"| {family} | refused: {refusal} |||||"
    if not one.checkpoint.can_chat:
        return f"| {family} | an encoder: it is compressed and exported, and does not chat |||||"
    tokens = agree.some_tokens(VOCABULARY)
    expected = agree.reference(one.model, tokens)
    errors = [agree.error(agree.reference(one.in_bf16(), tokens), expected)]
    for decoder in (open_original(one.checkpoint), open_compressed(agree.packed(one.checkpoint, folder))):
        for pieces in ((128, 72), (128,)):
            errors.append(agree.error(agree.in_pieces(decoder, tokens, pieces), expected))
    alone, *found = errors
    if max(found[:2]) > bound(alone) or max(found[2:]) > bound_of_int8(alone):
        raise ValueError(f"beyond its bounds: {errors}")
    return f"| {family} | " + " | ".join(f"{error:.4f}" for error in errors) + " |"


def main() -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows, failed = [], False
    for family in (*FAMILIES, *TEXT_TWINS):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(row(family, Path(folder)))
            except Exception as error:  # a family must not keep the others from being told
                rows.append(f"| {family} | **at fault: {error!r:.200}** |||||")
                failed = True
        print(rows[-1], file=sys.stderr, flush=True)

    FILE.parent.mkdir(exist_ok=True)
    head = HEAD.format(version=transformers.__version__, tokens=agree.TOKENS)
    FILE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()

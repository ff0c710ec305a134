"""``verify``: whether an exported file gives the numbers of the folder that it was made from.

Knows nothing of how a file is read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.base.text import text
from studio.base.typed_paths import typed_path
from studio.cli.options import AsJson, app
from studio.cli.terminal import language, say, terminal

if TYPE_CHECKING:
    from studio.export.read_back import Kld, Verified


@app.command(help=say("help_verify"))
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=say("help_verify_file"), show_default=False)],
    against: Annotated[Path, typer.Option("--against", metavar="DIR", help=say("help_verify_against"))],
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.export import verify_folder
        from studio.export.gguf import verify as verify_gguf

        given = typed_path(file).resolve()
        verified = verify_folder.verified if given.is_dir() else verify_gguf.verified
        done = here.follow(verified(given, typed_path(against)))
        here.answer(_facts(done), say("verified", file=file.name, tokens=done.tokens), _rows(done))
        if done.llama_cpp is None and not given.is_dir():
            here.note(text("terminal.verify_not_tried", language()))


def _facts(done: "Verified") -> dict[str, Any]:
    other = done.llama_cpp
    return {
        "tensors": done.tensors,
        "tokens": done.tokens,
        "answer": done.answer,
        "reader": {"kld": {"mean": done.reader.mean, "max": done.reader.largest}, "logit_difference": done.difference},
        "llama_cpp": None
        if other is None
        else {
            "kld": {"mean": other.kld.mean, "max": other.kld.largest},
            "logit_difference": other.difference,
            "same_tokens": other.has_same_tokens,
        },
    }


def _rows(done: "Verified") -> list[tuple[str, str]]:
    rows = [
        (say("verify_tensors"), say("verify_all", count=done.tensors)),
        (say("verify_reader"), _kld(done.reader)),
        (say("verify_logits"), f"{done.difference:.2g}"),
    ]
    other = done.llama_cpp
    if other is not None:
        rows += [
            (say("verify_llama_cpp"), _kld(other.kld)),
            (say("verify_logits"), f"{other.difference:.2g}"),
            (say("verify_tokens"), say("verify_same" if other.has_same_tokens else "verify_other")),
        ]
    return [*rows, (say("verify_answer" if other is not None else "verify_answer_read"), done.answer)]


def _kld(measured: "Kld") -> str:
    return say("verify_kld", mean=f"{measured.mean:.2g}", most=f"{measured.largest:.2g}")

"""Folders with links out of them, pipes, devices and folders where files should be."""

import os
from collections.abc import Callable

from tests.corpus.case import CHAT, CONFIG, INDEX, SECRET, TOKENIZER, WEIGHTS, Case, Place

LINK = ("link_out",)
NOT_A_FILE = ("damaged_file", "missing_file", "link_out", "cannot_use", "no_tokenizer", "tokenizer_failed",
              "only_pickles", "not_a_model", "no_index", "no_safetensors")  # fmt: skip


def linked(name: str, to: str = "") -> Callable[[Place], None]:
    """Put a link in a file's place: to ``to``, or to the file itself, moved out of the folder."""

    def build(place: Place) -> None:
        folder = place.llama()
        target = to
        if not to:
            target = str(place.folder / f"moved-{name}")
            (folder / name).rename(target)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return build


def secret(name: str) -> Callable[[Place], None]:
    """Link a file that an export would copy to somebody else's."""

    def build(place: Place) -> None:
        place.secret.write_text(SECRET)
        folder = place.llama()
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(place.secret)

    return build


def pipe(name: str) -> Callable[[Place], None]:
    """Put a pipe there, whose reader waits for ever."""

    def build(place: Place) -> None:
        folder = place.llama()
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return build


def directory(name: str) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        folder = place.llama()
        (folder / name).unlink()
        (folder / name).mkdir()

    return build


def loop(place: Place) -> None:
    """A link that leads to itself, in a folder that leads to itself."""
    folder = place.llama()
    (folder / "again").symlink_to(folder)
    (folder / "loop.jinja").symlink_to("loop.jinja")


def long(name: str) -> Callable[[Place], None]:
    """A file of a terabyte that takes no disk."""
    return lambda place: os.truncate(place.llama() / name, 1 << 40)


def nothing(place: Place) -> None:
    place.model.mkdir()


CASES = (
    Case("weights elsewhere", linked(WEIGHTS), LINK),
    Case("config elsewhere", linked(CONFIG), LINK),
    Case("tokenizer elsewhere", linked(TOKENIZER), LINK),
    Case("index elsewhere", linked(INDEX, "/etc/passwd"), LINK),
    Case("template that is somebody's secret", secret("chat_template.jinja"), LINK),
    Case("vocabulary that is somebody's secret", secret("vocab.txt"), LINK, may_work=True),
    Case("license that is somebody's secret", secret("LICENSE"), LINK, may_work=True),
    Case("generation's config that is somebody's secret", secret("generation_config.json"), LINK),
    Case("config that is a device without end", linked(CONFIG, "/dev/zero"), NOT_A_FILE),
    Case("weights that are a device", linked(WEIGHTS, "/dev/zero"), NOT_A_FILE),
    Case("weights that are the process's own memory", linked(WEIGHTS, "/proc/self/mem"), LINK),
    Case("links that lead to themselves", loop, LINK, may_work=True),
    Case("config that is a pipe", pipe(CONFIG), NOT_A_FILE),
    Case("weights that are a pipe", pipe(WEIGHTS), NOT_A_FILE),
    Case("tokenizer that is a pipe", pipe(TOKENIZER), NOT_A_FILE, CHAT),
    Case("config that is a folder", directory(CONFIG), NOT_A_FILE),
    Case("weights that are a folder", directory(WEIGHTS), NOT_A_FILE),
    Case("tokenizer that is a folder", directory(TOKENIZER), NOT_A_FILE, CHAT),
    Case("weights of a terabyte", long(WEIGHTS), ("damaged_file",)),
    Case("config of a terabyte", long(CONFIG), ("damaged_file", "file_too_large")),
    Case("tokenizer of a terabyte", long(TOKENIZER), ("tokenizer_memory", "file_too_large", "tokenizer_failed"), CHAT),
    Case("a folder of nothing", nothing, NOT_A_FILE),
)

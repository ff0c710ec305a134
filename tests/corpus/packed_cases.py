"""Compressed folders and recipes that somebody changed, and texts that are none."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

from safetensors.torch import load_file, save_file

from tests.corpus.case import CHAT, RECIPE, SECRET, Case, Place, edit, pickle_that_runs

PACKED_WEIGHTS = "weights.studio"
BAD = ("bad_recipe", "recipe_mismatch", "recipe_sizes", "tensor_no_place", "tensor_mismatch", "unknown_version",
       "missing_file", "damaged_file", "unknown_scheme")  # fmt: skip
NOT_CHOSEN = ("unknown_mode", "unknown_method", "bad_model_name", "ratio_range", "model_not_found", "hub_unreachable",
              "unknown_group_size", "recipe_needs_model", "recipe_other_model")  # fmt: skip
APPLY = ("apply", "{model}/" + RECIPE, "--out", "{out}", "--source", "{llama}")
TEXT = ("evaluate", "{model}", "--text", "{text}", "--activations")
Change = Callable[[dict[str, Any]], object]


def recipe(change: Change) -> Callable[[Place], None]:
    return lambda place: edit(place.packed() / RECIPE, change)


def raw(content: bytes) -> Callable[[Place], object]:
    return lambda place: (place.packed() / RECIPE).write_bytes(content)


def signed(place: Place) -> None:
    """Write the checksums of the files as they are: whoever changes a file can do that too."""
    names = [path.name for path in place.model.iterdir()]
    edit(place.model / RECIPE, lambda said: said["sha256"].update({
        name: hashlib.sha256((place.model / name).read_bytes()).hexdigest() for name in names if name in said["sha256"]
    }))  # fmt: skip


def spoiled(value: float) -> Callable[[Place], None]:
    """Put a number that is none among the scales, and sign it."""

    def build(place: Place) -> None:
        file = place.packed() / PACKED_WEIGHTS
        arrays = load_file(file)
        name = next(each for each in arrays if each.endswith(".scale"))
        arrays[name].view(-1)[3] = value
        save_file(arrays, file)
        signed(place)

    return build


def pickled(place: Place) -> None:
    (place.packed() / PACKED_WEIGHTS).write_bytes(pickle_that_runs(place.marker))
    signed(place)


def linked(place: Place) -> None:
    place.secret.write_text(SECRET)
    file = place.packed() / "config.json"
    file.unlink()
    file.symlink_to(place.secret)


def layer(**said: object) -> Callable[[Place], None]:
    return recipe(lambda content: content["weights"][3].update(said))


def opened(name: str, build: Callable[[Place], object], *keys: str, may_work: bool = False) -> Case:
    return Case(name, build, (*BAD, *keys), CHAT, may_work=may_work)


def applied(name: str, change: Change, *keys: str, may_work: bool = False) -> Case:
    return Case(name, recipe(change), (*BAD, *NOT_CHOSEN, *keys), APPLY, may_work=may_work)


def chosen(**said: object) -> Change:
    return lambda content: content["choices"].update(said)


def text(make: Callable[[Place], object]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        place.llama()
        make(place)

    return build


def read(name: str, make: Callable[[Place], object], *keys: str) -> Case:
    return Case(name, text(make), ("text_missing", "text_binary", "text_empty", "text_too_long", "text_too_short",
                                   "cannot_use", *keys), TEXT)  # fmt: skip


CASES = (
    opened("recipe that is no JSON", raw(b"{")),
    opened("recipe nested a million deep", raw(b"[" * 1_000_000)),
    opened("recipe of another format", recipe(lambda said: said.update(format="evil"))),
    opened("recipe of a version to come", recipe(lambda said: said.update(format_version=99))),
    opened("recipe with a key of its own", recipe(lambda said: said.update(run="rm -rf /"))),
    opened("scheme that is none", layer(scheme="int99_asym-g32")),
    opened("scheme of another size", layer(scheme="int4_sym-g32")),
    opened("shape without end", layer(shape=[1 << 40, 1 << 40])),
    opened("name that is a path", layer(name="../../etc/passwd")),
    opened("name that is Python", layer(tied=["__class__.weight"]), may_work=True),
    opened("name without end", layer(name="a" * 100_000)),
    opened("sizes that lie", recipe(lambda said: said.update(compressed_bytes=1 << 39))),
    opened("a file above the folder", recipe(lambda said: said["sha256"].update({"../secret.txt": "0" * 64}))),
    opened("a file with a nul", recipe(lambda said: said["sha256"].update({"a\0b": "0" * 64}))),
    opened("one weight twice", recipe(lambda said: said["weights"].append(said["weights"][0]))),
    opened("no weights", recipe(lambda said: said.update(weights=[]))),
    opened("scales that are no numbers", spoiled(math.nan), "not_finite"),
    opened("scales without end", spoiled(math.inf), "not_finite"),
    opened("weights that are a pickle", pickled),
    opened("config that is somebody's secret", linked, "link_out", "not_an_object"),
    applied("mode that is none", chosen(mode="evil")),
    applied("method that is code", chosen(method="__import__('os')")),
    applied("share below nothing", chosen(ratio=-1.0)),
    applied("share that is no number", chosen(ratio="NaN")),
    applied("group without end", chosen(group_size=1 << 62), "group_size_misfit"),
    applied("budget without end", chosen(budget="9" * 10_000), "bad_budget", "unknown_budget"),
    applied("pattern that never ends", chosen(pins=[["(a+)+$" * 10, "int4_asym"]]), "unknown_layer"),
    applied(
        "a hundred thousand patterns",
        chosen(pins=[["*" * 50, "int4_asym"]] * 100_000),
        "unknown_layer",
        "file_too_large",
    ),
    applied("model that is a path", lambda said: said["source"].update(model="../../../etc"), may_work=True),
    applied("model that is an address", lambda said: said["source"].update(model="file:///etc/passwd"), may_work=True),
    applied(
        "commit that is a path",
        lambda said: said["source"].update(model="builtin", revision="../../main"),
        may_work=True,
    ),
    applied(
        "text that is somebody's secret",
        chosen(method="gptq", calibration={"text": "/etc/passwd"}),
        "recipe_needs_text",
    ),
    read("text that is not there", lambda place: None),
    read("text that is a picture", lambda place: (place.folder / "text.txt").write_bytes(b"\x89PNG\0\xff" * 999)),
    read("text of nothing", lambda place: (place.folder / "text.txt").write_bytes(b" \n" * 99)),
    read("text that is a folder", lambda place: (place.folder / "text.txt").mkdir()),
    read("text that is a device without end", lambda place: (place.folder / "text.txt").symlink_to("/dev/zero")),
)

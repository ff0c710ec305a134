"""A data set on the Hub as a text: one file of plain text, JSON lines, JSON or CSV, its first megabytes, one field.

Nothing of it is run, nothing is unpacked, and no more is read than the bytes asked for. Knows no models.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from studio.base.errors import TextError
from studio.checkpoint.hub_client import DATASET, HubRanges, is_repo_id, listing

MOST_BYTES = 2 << 20
"""Read of a file: more than the windows of any calibration or evaluation hold."""
SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""What can be read without another library, in the order of choice where no file is named."""
NOT_DATA = ("README.md", "LICENSE.txt", "LICENSE.md", "dataset_infos.json", "dataset_info.json", "requirements.txt")
FIELD = "text"
"""The field that is read where a row has it; else the one with most text."""

NAME = re.compile(
    r"(?:hf://datasets/|https://huggingface\.co/datasets/|datasets/)?"
    r"(?P<repo>[^/@#\s]+/[^/@#\s]+)(?:@(?P<revision>[^/#\s]+))?"
    r"(?:/(?:(?:blob|resolve|tree|raw)/(?P<branch>[^/#\s]+))?/?(?P<file>[^#]*))?(?:#(?P<field>.+))?"
)
PREFIX = "hf://datasets/"

Row = dict[str, Any]


@dataclass(frozen=True)
class DatasetText:
    """What was read of a data set."""

    name: str
    """What to ask for to read the same: ``hf://datasets/owner/name/file.jsonl#text``."""
    text: str


def is_dataset(name: str) -> bool:
    """Return whether a name in the terminal means a data set of the Hub, not a file."""
    return name.startswith(PREFIX)


def read_dataset(name: str) -> DatasetText:
    """Return the text of ``hf://datasets/OWNER/NAME[@REVISION][/FILE][#FIELD]``, the first part optional.

    Without a file the first of the data set's that can be read is taken, without a field ``text`` or the one with most
    text. Raises TextError for a name that is none, a data set without such a file or field, or one that holds no text;
    HubError where the Hub does not answer.
    """
    match = NAME.fullmatch(name.strip())
    if match is None or not is_repo_id(match["repo"]):
        raise TextError("bad_dataset_name", name=name[:120])
    repo, wished = match["repo"], (match["file"] or "").strip("/")
    sha, sizes, *_ = listing(repo, match["revision"] or match["branch"], DATASET)
    file = _file(repo, wished, sizes)
    content = HubRanges(repo, sha, DATASET).read_bytes(file, 0, min(sizes[file], MOST_BYTES))
    text = _decoded(file, content, is_cut=sizes[file] > MOST_BYTES)
    revision = f"@{match['revision'] or match['branch']}" if match["revision"] or match["branch"] else ""
    place = f"{PREFIX}{repo}{revision}/{file}"
    suffix = PurePosixPath(file).suffix.lower()
    if suffix in (".txt", ".md"):
        return DatasetText(place, _checked(file, text))
    field, texts = _column(file, _rows(file, suffix, text, sizes[file] > MOST_BYTES), match["field"])
    return DatasetText(f"{place}#{field}", _checked(file, "\n\n".join(texts)))


def _file(repo: str, wished: str, sizes: dict[str, int]) -> str:
    """Return the file to read: the one wished for, or the first that holds text. Raises TextError."""
    if wished and wished not in sizes:
        raise TextError("dataset_no_file", file=wished[:120], dataset=repo)
    if wished:
        if PurePosixPath(wished).suffix.lower() not in SUFFIXES:
            raise TextError("dataset_format", file=wished[:120], formats=", ".join(SUFFIXES))
        return wished
    candidates = [
        name
        for name in sorted(sizes)
        if PurePosixPath(name).name not in NOT_DATA and not any(part.startswith(".") for part in name.split("/"))
    ]
    for suffix in SUFFIXES:
        for name in candidates:
            if PurePosixPath(name).suffix.lower() == suffix:
                return name
    raise TextError("dataset_no_text", dataset=repo, formats=", ".join(SUFFIXES))


def _decoded(file: str, content: bytes, is_cut: bool) -> str:
    """Return UTF-8 as text; of a file that is cut the last, broken character is left away."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not is_cut or error.start < len(content) - 3:
            raise TextError("text_binary", file=file) from error
        text = content[: error.start].decode("utf-8-sig")
    if "\0" in text:
        raise TextError("text_binary", file=file)
    return text


def _checked(file: str, text: str) -> str:
    if not text.strip():
        raise TextError("text_empty", file=file)
    return text


def _rows(file: str, suffix: str, text: str, is_cut: bool) -> list[Row]:
    """Return the rows that are whole. Raises TextError for a file that is not what its name says."""
    try:
        if suffix in (".csv", ".tsv"):
            rows = list(csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ","))
            return rows[:-1] if is_cut else rows
        if suffix == ".json":
            return list(_json_rows(text, is_cut))
        return [_object(json.loads(line)) for line in _lines(text, is_cut)]
    except (ValueError, RecursionError, csv.Error) as error:
        raise TextError("dataset_unreadable", file=file) from error


def _lines(text: str, is_cut: bool) -> list[str]:
    lines = text.splitlines()
    return [line for line in (lines[:-1] if is_cut else lines) if line.strip()]


def _json_rows(text: str, is_cut: bool) -> Iterator[Row]:
    """Yield the objects of a list, of an object's first list, or of lines; of a file that is cut, those before it."""
    decoder, start = json.JSONDecoder(), re.match(r"\s*", text).end()  # type: ignore[union-attr]
    if not text.startswith("[", start):
        try:
            whole = json.loads(text)
        except ValueError:  # lines, though the file's name does not say so
            yield from (_object(json.loads(line)) for line in _lines(text, is_cut))
            return
        rows = next((value for value in _object(whole).values() if isinstance(value, list)), [whole])
        yield from map(_object, rows)
        return
    place = start + 1
    while True:
        place = re.compile(r"[\s,]*").match(text, place).end()  # type: ignore[union-attr]
        if text.startswith("]", place):
            return
        try:
            row, place = decoder.raw_decode(text, place)
        except ValueError:
            if is_cut:
                return
            raise
        yield _object(row)


def _object(value: object) -> Row:
    if not isinstance(value, dict):
        raise ValueError("a row is no object")
    return value


def _column(file: str, rows: list[Row], wished: str | None) -> tuple[str, list[str]]:
    """Return the field that is read and its texts. Raises TextError where no row has it."""
    lengths: Counter[str] = Counter()
    for row in rows:
        for key, value in row.items():
            if isinstance(key, str) and isinstance(value, str) and value.strip():
                lengths[key] += len(value)
    if wished is not None and wished not in lengths:
        raise TextError(
            "dataset_no_field", file=file, field=wished[:80], fields=", ".join(map(str, list(lengths)[:12])) or "–"
        )
    if not lengths:
        raise TextError("text_empty", file=file)
    field = wished or (FIELD if FIELD in lengths else lengths.most_common(1)[0][0])
    return field, [row[field] for row in rows if isinstance(row.get(field), str) and row[field].strip()]

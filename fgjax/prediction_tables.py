"""Predictions of many images in a table that grows as they come; a later call goes on with it.

A table's name ends with .csv or .jsonl. It holds a row for each file, those that are no images
included, so that nothing is asked twice. A row is written whole; what a killed process left of one
is cut off.
"""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from fgjax.data.images import Encoded, check
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Prediction
from fgjax.model_files import Model

SUFFIXES = (".csv", ".jsonl")
CHUNK = 64  # images between writes


@dataclasses.dataclass(frozen=True)
class Written:
    """What a call did.

    Attributes:
      new: images that were asked now.
      earlier: rows that were there.
      unreadable: files among the new ones that are no images.
    """

    new: int
    earlier: int
    unreadable: int


def entry(model: Model, file: str, found: Prediction, *, top: int, rate: float) -> dict[str, Any]:
    """What is said of an image: the `top` classes, whether it is one of them, box and parts."""
    order = found.probabilities.argsort()[::-1][:top]
    return {
        "file": file,
        "top": [
            {"class": model.class_names[k], "probability": float(found.probabilities[k])}
            for k in order
        ],
        "known": found.known(rate),
        "false_accepts": found.false_accepts,
        "box": found.box.tolist(),
        "parts": found.parts.tolist(),
    }


def fill(
    model: Model, files: Sequence[pathlib.Path], table: pathlib.Path, *, top: int, rate: float
) -> Written:
    """Ask a model about the files that a table does not have yet, and add their rows.

    Raises:
      UserError: the table's name ends otherwise, it is another model's or no such table, or it
        cannot be written.
    """
    kind = _kind(table)
    known = kind.files(model, table, top)
    new = [file for file in files if _one_line(file) not in known]
    unreadable = 0
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(table, "a", newline="", encoding="utf-8", errors="surrogateescape") as out,
            tqdm(total=len(new), unit="image", disable=None) as bar,
        ):
            if not out.tell():
                out.write(kind.head(top))
            for chunk in _chunks(new):
                rows = list(_answers(model, chunk, top=top, rate=rate))
                unreadable += sum("error" in row for row in rows)
                out.write("".join(kind.line(model, row, top) for row in rows))
                out.flush()
                bar.update(len(chunk))
    except OSError as error:
        raise UserError(
            f"{table} cannot be written ({error.strerror or error}): make room or name another "
            "table; the same command goes on with what is there."
        ) from error
    return Written(len(new), len(known), unreadable)


def _one_line(value: Any) -> str:
    """A line break inside of a name would make two lines of a row."""
    return str(value).replace("\n", " ").replace("\r", " ")


def _chunks(files: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    left = iter(files)
    while chunk := list(itertools.islice(left, CHUNK)):
        yield chunk


def _answers(
    model: Model, files: Sequence[pathlib.Path], *, top: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Entries of files in their order; `error` where one is no image."""
    read = [_read(file) for file in files]
    answers = iter(model.predict([image for image in read if isinstance(image, Encoded)]))
    for file, image in zip(files, read, strict=True):
        if isinstance(image, Encoded):
            yield entry(model, _one_line(file), next(answers), top=top, rate=rate)
        else:
            yield {"file": _one_line(file), "error": image}


def _read(file: pathlib.Path) -> Encoded | str:
    try:
        return check(file.read_bytes(), str(file))
    except (UserError, OSError) as error:
        return str(error)


_SIDES = ("top", "left", "bottom", "right")  # as of `Prediction.box`


class _Lines:
    """JSON lines: an entry as it is, and the model's fingerprint."""

    def files(self, model: Model, table: pathlib.Path, top: int) -> set[str]:
        del top  # a line says how many it has
        rows: list[Any]
        try:
            rows = [json.loads(line) for line in _whole(table)]
        except ValueError:
            rows = [None]
        return {row["file"] for row in rows if _of(model, table, row)}

    def head(self, top: int) -> str:
        del top
        return ""

    def line(self, model: Model, row: dict[str, Any], top: int) -> str:
        del top
        values = {**row, "model": model.fingerprint}
        return json.dumps(values, ensure_ascii=False) + "\n"


class _Columns:
    """CSV: a column for each class and probability, and for each side of the box, as a share."""

    def _names(self, top: int) -> list[str]:
        classes = [f"{what}_{n + 1}" for n in range(top) for what in ("class", "probability")]
        box = [f"box_{side}" for side in _SIDES]
        return ["file", *classes, "known", "false_accepts", *box, "error", "model"]

    def files(self, model: Model, table: pathlib.Path, top: int) -> set[str]:
        lines = _whole(table)
        if lines and lines[0] != self.head(top).rstrip("\n"):
            raise UserError(
                f"{table} has other columns than predictions with --top={top}: name another table."
            )
        return {row["file"] for row in csv.DictReader(lines) if _of(model, table, row)}

    def head(self, top: int) -> str:
        return self._written(self._names(top))

    def line(self, model: Model, row: dict[str, Any], top: int) -> str:
        values = {**row, "model": model.fingerprint}
        for number, found in enumerate(values.pop("top", []), 1):
            values[f"class_{number}"] = found["class"]
            values[f"probability_{number}"] = f"{found['probability']:.6g}"
        for side, place in zip(_SIDES, values.pop("box", [])):
            values[f"box_{side}"] = f"{place:.4f}"
        return self._written(["" if (v := values.get(n)) is None else v for n in self._names(top)])

    def _written(self, values: list[Any]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(map(_one_line, values))
        return buffer.getvalue()


def _kind(table: pathlib.Path) -> _Lines | _Columns:
    if table.suffix not in SUFFIXES:
        raise UserError(f"{table} is not the name of a table: end it with {' or '.join(SUFFIXES)}.")
    return _Lines() if table.suffix == ".jsonl" else _Columns()


def _whole(table: pathlib.Path) -> list[str]:
    """The whole lines of a table; the beginning of another is cut off the file."""
    if not table.exists():
        return []
    try:
        data = table.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with open(table, "r+b") as file:
                file.truncate(end)
        return data[:end].decode("utf-8", "surrogateescape").split("\n")[:-1]
    except OSError as error:
        raise UserError(f"{table} is not a table of predictions: name another.") from error


def _of(model: Model, table: pathlib.Path, row: Any) -> bool:
    """True for a row that this model wrote.

    Raises:
      UserError: it did not.
    """
    if not isinstance(row, dict) or row.get("model") is None or not row.get("file"):
        raise UserError(f"{table} is not a table of predictions: name another.")
    if row["model"] != model.fingerprint:
        raise UserError(
            f"{table} holds predictions of another model ({row['model']}; this one is "
            f"{model.fingerprint}): name another table."
        )
    return True

"""Classes and boxes of images, with any trained run or model file.

fgjax predict --workdir=RUN IMAGE_OR_FOLDER…
fgjax predict --model=FILE IMAGE_OR_FOLDER…

prints the likeliest classes and draws the object and its parts.
--table=FILE.csv or FILE.jsonl is for thousands of images: rows are written as they come, and the
same command goes on where it was stopped.
--explain veils in each picture what the answer does not rest on; it takes as long as 49 answers.
--time says how long an image takes.
"""

import argparse
import json
import logging
import pathlib
import statistics
import time
from collections.abc import Sequence

import cv2

from fgjax import command_line, main, prediction_tables
from fgjax.data.images import SUFFIXES, check, decode
from fgjax.errors import UserError
from fgjax.evaluation.unknown import FALSE_ACCEPTS
from fgjax.figures import drawing
from fgjax.model_files import Model
from fgjax.opening import open_model

log = logging.getLogger(__name__)


def find_images(paths: list[str]) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Image files under the given files and folders, and the other files there.

    Raises:
      UserError: a path does not exist.
    """
    images, others = [], []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist.")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            (images if file.suffix.lower() in SUFFIXES else others).append(file)
    return images, others


def predict(
    source: pathlib.Path,
    paths: list[str],
    *,
    top: int = 5,
    pictures: pathlib.Path | None = None,
    rate: float = FALSE_ACCEPTS,
    explain: bool = False,
) -> list[dict]:
    """The `top` classes, the object's box and the parts of every image.

    Args:
      source: folder of a finished run, or a model file.
      paths: image files or folders.
      top: how many classes to name.
      pictures: where to write the images with their boxes drawn; None for nowhere.
      rate: share of things of no class that may be taken for one.
      explain: whether pictures are veiled where the answer does not rest on them, and "rests_on"
        says where it does.

    Raises:
      UserError: no finished run, no images, or a path that does not exist.
    """
    files, others = find_images(paths)
    model = open_model(source)
    images, readable = [], []
    for file in files:
        try:
            images.append(check(file.read_bytes(), str(file)))
            readable.append(file)
        except UserError:
            others.append(file)
    if others:
        log.warning("%d files are not images: left out, the first: %s", len(others), others[0])
    if not images:
        raise UserError(f"there is no readable image in {', '.join(paths)}.")
    results = []
    for file, image, found in zip(readable, images, model.predict(images)):
        result = prediction_tables.entry(model, str(file), found, top=top, rate=rate)
        pixels = decode(*image)
        if explain:
            told = model.explain(image)
            result["rests_on"] = told.where
            pixels = drawing.veiled(pixels, told.squares) if told.where else pixels
        if pictures is not None:
            result["picture"] = str(_draw(pixels, found, file, pictures, len(results)))
        results.append(result)
    return results


def milliseconds(model: Model, files: Sequence[pathlib.Path]) -> list[float]:
    """How long each image takes by itself, read, localized and classified.

    The first is also looked at before, so that nothing is compiled while the clock runs.
    """
    model.predict(files[:1])
    found = []
    for file in files:
        began = time.perf_counter()
        model.predict([file])
        found.append(1000 * (time.perf_counter() - began))
    return found


def _timed(source: pathlib.Path, results: list[dict], *, most: int = 50) -> str:
    """A sentence on the speed of a model on the first images of which there are results."""
    files = [pathlib.Path(result["file"]) for result in results[:most]]
    found = milliseconds(open_model(source), files)
    return (
        f"{statistics.median(found):.0f} ms an image, one at a time (median of {len(found)}; "
        f"{min(found):.0f} to {max(found):.0f}), reading included"
    )


def _filled(source: pathlib.Path, options: argparse.Namespace, rate: float) -> str:
    """Write the table; a sentence on what was done."""
    for name, given in (
        ("json", options.json), ("time", options.time), ("out", options.out),
        ("explain", options.explain),
    ):  # fmt: skip
        if given:
            raise UserError(f"--{name} does not go with --table: leave one of them out.")
    files, others = find_images(options.paths)
    if others:
        log.warning("%d files are not images: left out, the first: %s", len(others), others[0])
    if not files:
        raise UserError(f"there is no image in {', '.join(options.paths)}.")
    model = open_model(source)
    done = prediction_tables.fill(model, files, options.table, top=options.top, rate=rate)
    text = f"{options.table}: {done.new:,} new rows beside {done.earlier:,} that were there"
    if done.unreadable:
        text += f"; {done.unreadable:,} files could not be read (column error)"
    return f"{text}."


def _draw(image, found, file: pathlib.Path, folder: pathlib.Path, number: int) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04d}-{file.stem}.png"
    large = drawing.enlarge(image, 512)
    drawn = drawing.with_boxes(
        large, [found.box, *found.parts], [drawing.RED, *drawing.PART_COLORS]
    )
    cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    return path


def command(arguments: list[str] | None = None) -> None:
    """`fgjax predict`."""
    parser = command_line.parser_of("predict", __doc__)
    parser.add_argument("paths", nargs="+", metavar="IMAGE_OR_FOLDER")
    command_line.add_source_options(parser)
    command_line.add_rate_option(parser)
    parser.add_argument("--top", type=int, default=5, help="classes to list (5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--table", type=pathlib.Path, metavar="FILE.csv|FILE.jsonl",
        help="write rows there as they come, and go on with what it has; no pictures",
    )  # fmt: skip
    parser.add_argument("--explain", action="store_true", help="show what the answers rest on")
    parser.add_argument("--time", action="store_true", help="measure how long an image takes")
    parser.add_argument(
        "--out", type=pathlib.Path, help="pictures go here (predictions, beside it)"
    )
    options = parser.parse_args(arguments)
    main.setup()
    source = command_line.source_of(options)
    pictures = options.out or command_line.beside(source, "predictions")
    rate = command_line.rate_of(options)
    if options.top < 1:
        raise UserError(f"--top is {options.top}, but must be 1 or more.")
    if options.table is not None:
        print(_filled(source, options, rate))
        return
    results = predict(
        source, options.paths, top=options.top, pictures=pictures, rate=rate,
        explain=options.explain,
    )  # fmt: skip
    if options.time:
        log.info("%s", _timed(source, results))
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        print(result["file"])
        if result["known"] is False:
            print(f"  none of these: {result['false_accepts']:.0%} of unknown things look as sure")
        for entry in result["top"]:
            print(f"  {entry['probability']:6.1%}  {entry['class']}")
        if options.explain:
            where = result["rests_on"]
            print(f"  rests on: {f'most of all the {where}' if where else 'no square by itself'}")
        print(f"  picture: {result['picture']}")


if __name__ == "__main__":
    command_line.run(command)

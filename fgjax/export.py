"""One file of a finished run's model, which needs neither the run nor the dataset.

fgjax export --workdir=RUN --out=bird.fgjax

prints its size, how well it agrees with the run, and how long an image takes.
`fgjax.load("bird.fgjax")` reads it, and so do `fgjax predict --model=bird.fgjax` and
`fgjax search --model=bird.fgjax`. With --format=onnx its networks are ONNX, for other programs; it
is a zip, so that `unzip bird.fgjax 'networks/*'` takes them out.
"""

import logging
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from fgjax import command_line, main, model_files, opening
from fgjax.errors import UserError
from fgjax.model_files import AnyImage, Model
from fgjax.report import run as report
from fgjax.training.run import Run

log = logging.getLogger(__name__)


FORMATS = ("stablehlo", "onnx")
_CHECKED = 8  # test images
AGREE = 1e-3  # of probabilities and of unit embeddings; beyond it a file is not the run


def export(workdir: pathlib.Path, out: pathlib.Path, *, onnx: bool = False) -> Model:
    """Write the model of a finished run to a file, and read it.

    Raises:
      UserError: no finished run, its method has nothing for new images, or ONNX is wanted and a
        network cannot be written so.
    """
    run = main.open_run(workdir)
    return _written(run, opening.of_run(run), out, onnx=onnx)


def _written(run: Run, model: Model, out: pathlib.Path, *, onnx: bool) -> Model:
    problems, found = [], {}
    for name in ("predictor", "embedder"):
        try:
            found[name] = getattr(model, name)
        except UserError as error:
            problems.append(str(error))
            found[name] = None
    if not any(found.values()):
        raise UserError(" ".join(problems))
    card = {
        **model.card,
        "classes": list(model.class_names),
        "confusions": report.confused(run),
        "temperature": getattr(found["predictor"], "temperature", None),
    }
    model_files.save(out, card, **found, onnx=onnx)
    return model_files.load(out)


def difference(model: Model, other: Model, images: Sequence[AnyImage]) -> float:
    """The largest, of probabilities and of unit embeddings, on some images."""
    found = [0.0]
    if model.class_names:
        for one, two in zip(model.predict(images), other.predict(images), strict=True):
            found.append(float(np.abs(one.probabilities - two.probabilities).max()))
    if model.embeds:
        found.append(float(np.abs(model.embed(images) - other.embed(images)).max()))
    return max(found)


def latency(model: Model, batch_size: int, *, repeats: int = 3) -> float:
    """Milliseconds for a batch of images that are as large as the network's, the best of some."""
    size = model.card["image"]["size"]
    images = list(np.random.default_rng(0).integers(0, 255, (batch_size, size, size, 3), np.uint8))
    call = model.predict if model.class_names else model.embed
    call(images, batch_size=batch_size)  # compiles
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(images, batch_size=batch_size)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def command(arguments: list[str] | None = None) -> None:
    """`fgjax export`."""
    parser = command_line.parser_of("export", __doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="a finished run")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the file to write")
    parser.add_argument("--format", choices=FORMATS, default="stablehlo",
                        help="what the networks are written as (stablehlo)")  # fmt: skip
    options = parser.parse_args(arguments)
    main.setup()
    run = main.open_run(options.workdir)
    of_run = opening.of_run(run)
    model = _written(run, of_run, options.out, onnx=options.format == "onnx")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    test = run.dataset.test
    images = [test.source[row]["image"] for row in range(min(_CHECKED, len(test)))]
    apart = difference(of_run, model, images)
    print(f"largest difference from the run on {len(images)} test images: {apart:.1e}")
    if not apart < AGREE:
        options.out.unlink()
        (other,) = set(FORMATS) - {options.format}
        raise UserError(
            f"the file's answers differ from the run's by {apart:.2g}, so {options.out} was "
            f"removed: write it as {other} instead."
        )
    device = jax.devices()[0].device_kind
    for batch_size in (1, 32):
        print(f"batch {batch_size}: {latency(model, batch_size):.1f} ms on {device}")


if __name__ == "__main__":
    command_line.run(command)

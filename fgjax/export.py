"""One file of a finished run's model, which needs neither the run nor the dataset.

fgjax export --workdir=RUN --out=bird.fgjax

prints its size, and how long an image takes. `fgjax.load("bird.fgjax")` reads it, and so do
`fgjax predict --model=bird.fgjax` and `fgjax search --model=bird.fgjax`.
"""

import logging
import pathlib
import time

import jax
import numpy as np

from fgjax import command_line, main, model_files, opening
from fgjax.errors import UserError
from fgjax.model_files import Model

log = logging.getLogger(__name__)


def export(workdir: pathlib.Path, out: pathlib.Path) -> Model:
    """Write the model of a finished run to a file, and read it.

    Raises:
      UserError: no finished run, or its method has nothing for new images.
    """
    model = opening.of_run(main.open_run(workdir))
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
        "temperature": getattr(found["predictor"], "temperature", None),
    }
    model_files.save(out, card, **found)
    return model_files.load(out)


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
    options = parser.parse_args(arguments)
    main.setup()
    model = export(options.workdir, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    device = jax.devices()[0].device_kind
    for batch_size in (1, 32):
        print(f"batch {batch_size}: {latency(model, batch_size):.1f} ms on {device}")


if __name__ == "__main__":
    command_line.run(command)

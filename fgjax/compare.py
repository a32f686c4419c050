"""Finished runs side by side, image by image.

fgjax compare RUN RUN…                       on the same test images
fgjax compare RUN RUN… --out=compare.html    as a page, too

The first run is what the others are compared with. A difference's interval comes from drawing the
test images anew, ten thousand times (paired bootstrap). It says nothing about other seeds.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np

from fgjax import command_line, main, methods
from fgjax.errors import UserError
from fgjax.evaluation import nearest, paired_bootstrap, wilson_interval
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.report import page
from fgjax.report.run import answers_of
from fgjax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Side:
    """A run among those that are compared; shares in per cent.

    Attributes:
      name: the folder's.
      value: right answers.
      low: and
      high: of the 95 % interval.
      difference: to the first run, with the ends of its interval; None for the first.
    """

    name: str
    value: float
    low: float
    high: float
    difference: tuple[float, float, float] | None

    @property
    def differs(self) -> str:
        """Whether the interval of the difference leaves 0 out."""
        if self.difference is None:
            return ""
        _, low, high = self.difference
        return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def right_answers(run: Run) -> np.ndarray:
    """Whether each test image's first answer is right; in retrieval, its nearest other image's."""
    methods.of(run.config).run(run)  # has finished: finds its stages
    stage = answers_of(run)
    if stage is not None:
        stored = stage.load_arrays("predictions")
        return stored["logits"].argmax(axis=1) == stored["labels"]
    after = [s for s in run.stages.values() if (s.folder / "after.npz").exists()]
    ranked = json.loads((run.workdir / "results.json").read_text())["protocol"]
    if not after or ranked.get("similarity", "cosine") != "cosine":
        raise UserError(f"{run.workdir} keeps no answers for single images: compare other runs.")
    stored = after[-1].load_arrays("after")
    unit, labels = normalize_rows(stored["embeddings"]), stored["labels"]
    _, rows = nearest(unit, unit, count=1, own=np.arange(len(unit)))
    return labels[rows[:, 0]] == labels


def compare(workdirs: list[pathlib.Path]) -> list[Side]:
    """Every run beside the first.

    Raises:
      UserError: fewer than two, a folder without a finished run, or runs of other test images.
    """
    if len(workdirs) < 2:
        raise UserError("fgjax compare wants two runs or more: fgjax compare RUN RUN…")
    found, first = [], None
    for workdir in workdirs:
        run = main.open_run(workdir)
        told = json.loads((workdir / "results.json").read_text())["protocol"]
        what = tuple(told[key] for key in ("dataset_fingerprint", "zero_shot", "test_images"))
        if first is None:
            first = what
        elif what != first:
            raise UserError(
                f"{workdir} was tested on other images than {workdirs[0]} (dataset, split or "
                "number): compare runs of the same dataset."
            )
        found.append(right_answers(run).astype(np.float64))
    sides = []
    for workdir, right in zip(workdirs, found, strict=True):
        low, high = wilson_interval(float(right.sum()), len(right))
        difference = None
        if right is not found[0]:
            one, least, most = paired_bootstrap(right, found[0])
            difference = (100 * one, 100 * least, 100 * most)
        name = workdir.resolve().name
        sides.append(Side(name, 100 * float(right.mean()), 100 * low, 100 * high, difference))
    return sides


def text(sides: list[Side]) -> str:
    """The table as Markdown."""
    lines = ["| run | right (%) | 95 % interval | difference | 95 % interval | |", "|---" * 6 + "|"]
    for side in sides:
        cells = [side.name, f"{side.value:.1f}", f"{side.low:.1f} to {side.high:.1f}", "", "", ""]
        if side.difference is not None:
            one, low, high = side.difference
            cells[3:] = [f"{one:+.1f}", f"{low:+.1f} to {high:+.1f}", side.differs]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def command(arguments: list[str] | None = None) -> None:
    """`fgjax compare`."""
    parser = command_line.parser_of("compare", __doc__)
    parser.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN", help="workdirs")
    parser.add_argument("--out", type=pathlib.Path, help="a page to write")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    main.setup()
    sides = compare(options.runs)
    print(text(sides))
    if options.out:
        page.write(options.out, "compare.html", title="Runs side by side", sides=sides)
        print(f"page: {options.out}")


if __name__ == "__main__":
    command_line.run(command)

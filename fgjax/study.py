"""A table or figure of a paper, row by row and seed by seed.

python -m fgjax.study configs/aircraft.py:lapm,demo table5 --seeds=3

Rows share the stages in which they agree, finished rows are skipped, a stopped study resumes.
"""

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np

from fgjax import command_line, main, methods
from fgjax.config import Config, Row, Study, flatten, override
from fgjax.errors import UserError

log = logging.getLogger(__name__)


def load_config(name: str) -> Config:
    """The config of `configs/aircraft.py:lapm,demo`.

    Raises:
      UserError: there is no such file.
    """
    path, _, argument = name.partition(":")
    if not pathlib.Path(path).is_file():
        raise UserError(f"the config file {path} does not exist.")
    specification = importlib.util.spec_from_file_location("study_config", path)
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, os.getcwd())
    specification.loader.exec_module(module)
    return module.get_config(argument)


def parse_overrides(config: Config, settings: list[str]) -> dict[str, Any]:
    """`["method.alpha=1.2"]` as typed values.

    Raises:
      UserError: a field does not exist or a value has the wrong type.
    """
    flat, parsed = flatten(config), {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in flat:
            raise UserError(f"the config has no field {name!r}.")
        kind = type(flat[name])
        try:
            parsed[name] = text.lower() in ("true", "1") if kind is bool else kind(text)
        except ValueError as error:
            raise UserError(f"{name}={text!r} is not a {kind.__name__}.") from error
    return parsed


def run_study(
    config: Config, study: Study, seeds: list[int], folder: pathlib.Path, pool: pathlib.Path
) -> dict[str, list[dict]]:
    """Train (or find trained) every row with every seed; {row: results.json of each seed}."""
    results: dict[str, list[dict]] = {row.name: [] for row in study.rows}
    for seed in seeds:
        for row in study.rows:
            changed = override(config, {**row.overrides, "seed": seed})
            workdir = folder / f"{_slug(row.name)}-seed{seed}"
            done = workdir / "results.json"
            if done.exists():
                main.claim(workdir, changed)
                results[row.name].append(json.loads(done.read_text()))
                continue
            log.info("— %s, seed %d", row.name, seed)
            results[row.name].append(main.run(changed, workdir, pool=pool, figures=False))
    return results


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Summary:
    """One row of a study's table, in per cent."""

    row: Row
    values: tuple[float, ...]
    notes: tuple[float, ...]
    also: tuple[tuple[float, ...], ...] = ()

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds (ddof 1); 0 for one seed."""
        return _spread(self.values)


def _spread(values: tuple[float, ...]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def summarize(study: Study, results: dict[str, list[dict]]) -> list[Summary]:
    """Means and spreads of the study's metric."""
    summaries = []
    for row in study.rows:
        metrics = [result["metrics"] for result in results[row.name]]
        percent = lambda name: tuple(100 * m[name] for m in metrics)  # noqa: B023, E731
        summaries.append(
            Summary(
                row,
                percent(row.metric or study.metric),
                tuple(float(np.mean([m[note] for m in metrics])) for note in study.notes),
                tuple(percent(name) for name in study.also),
            )
        )
    return summaries


def markdown(study: Study, summaries: list[Summary], command: str, seeds: int) -> str:
    """The table, with the command that makes it."""
    lines = [
        f"# {study.title}", "", f"{study.source}. Mean ± standard deviation over {seeds} seed(s); "
        f"single values in brackets.", "", f"    {command}", "",
    ]  # fmt: skip
    lines += _grid_lines(study, summaries) if study.axes else _row_lines(study, summaries)
    return "\n".join(lines) + "\n"


def _row_lines(study: Study, summaries: list[Summary]) -> list[str]:
    has_paper = any(summary.row.paper is not None for summary in summaries)
    heads = ["row", f"{study.metric} (%)", *[f"{name} (%)" for name in study.also]]
    heads += [n.replace("_", " ") for n in study.notes]
    heads += ["paper (%)"] if has_paper else []
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for summary in summaries:
        each = ", ".join(f"{value:.1f}" for value in summary.values)
        cells = [summary.row.name, f"{summary.mean:.1f} ± {summary.deviation:.1f} ({each})"]
        cells += [f"{np.mean(values):.1f} ± {_spread(values):.1f}" for values in summary.also]
        cells += [f"{note:,.0f}" for note in summary.notes]
        if has_paper:
            cells.append("" if summary.row.paper is None else f"{summary.row.paper}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _grid(study: Study, summaries: list[Summary]) -> tuple[list, list, dict[tuple, Summary]]:
    """Values of both axes in ascending order, and the row at each pair of them."""
    cells = {tuple(s.row.overrides[axis] for axis in study.axes): s for s in summaries}
    first, second = (sorted({place[axis] for place in cells}) for axis in range(2))
    return first, second, cells


def _grid_lines(study: Study, summaries: list[Summary]) -> list[str]:
    first, second, cells = _grid(study, summaries)
    across, down = (axis.rsplit(".", 1)[-1].replace("_", " ") for axis in study.axes)
    lines = [
        f"| {down} \\ {across} | " + " | ".join(map(str, first)) + " |",
        "|" + "---|" * (len(first) + 1),
    ]
    for low in second:
        found = [cells[high, low] for high in first]
        each = [f"{one.mean:.1f} ± {one.deviation:.1f}" for one in found]
        lines.append(f"| {low} | " + " | ".join(each) + " |")
    return lines


def plot_surface(study: Study, summaries: list[Summary], path: pathlib.Path) -> None:
    """The metric over both axes: a curve for each value of the second, and the surface."""
    from fgjax.figures import drawing

    first, second, cells = _grid(study, summaries)
    values = np.array([[cells[x, y].mean for x in first] for y in second])
    across, down = (axis.rsplit(".", 1)[-1].replace("_", " ") for axis in study.axes)
    figure = drawing.plt.figure(figsize=(11, 4.2))
    left = figure.add_subplot(1, 2, 1)
    for label, row in zip(second, values):
        left.plot(first, row, "o-", markersize=4, label=str(label))
    left.set_xlabel(across)
    left.set_ylabel(f"{study.metric} (%)")
    left.legend(title=down, fontsize=8)
    left.grid(alpha=0.3)
    right = figure.add_subplot(1, 2, 2, projection="3d")
    right.plot_surface(*np.meshgrid(first, second), values, cmap="viridis")
    right.set_xlabel(across, fontsize=8)
    right.set_ylabel(down, fontsize=8)
    figure.suptitle(study.title, fontsize=10)
    drawing.save(figure, path)


def plot(study: Study, summaries: list[Summary], path: pathlib.Path) -> None:
    """Bars with the spread over seeds, and each seed as a dot."""
    from fgjax.figures import drawing

    figure, axis = drawing.plt.subplots(figsize=(7, 0.45 * len(summaries) + 1.4))
    places = np.arange(len(summaries))[::-1]
    means = [summary.mean for summary in summaries]
    axis.barh(places, means, xerr=[s.deviation for s in summaries], color="#9ecae1", capsize=3)
    for place, summary in zip(places, summaries):
        axis.plot(summary.values, [place] * len(summary.values), "k.", markersize=4)
    lowest = min(value for summary in summaries for value in summary.values)
    axis.set_xlim(max(lowest - 5, 0), min(max(means) + 5, 100))
    axis.set_yticks(places, [summary.row.name for summary in summaries], fontsize=8)
    axis.set_xlabel(f"{study.metric} (%)")
    axis.set_title(study.title, fontsize=10)
    drawing.save(figure, path)


def _in_parallel(arguments: list[str], options) -> None:
    """One process per seed, `jobs` at a time; seeds share no stages."""
    waiting = list(range(options.first_seed, options.first_seed + options.seeds))
    running: list[tuple[int, subprocess.Popen]] = []
    cores = sorted(os.sched_getaffinity(0))
    share = max(len(cores) // options.jobs, 1)
    free = [set(cores[i * share : (i + 1) * share]) or set(cores) for i in range(options.jobs)]
    taken: dict[int, set[int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                seed, mine = waiting.pop(0), free.pop()
                command = [sys.executable, "-m", "fgjax.study", *arguments, "--jobs=1",
                           f"--first-seed={seed}", "--seeds=1"]  # fmt: skip
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL,
                    preexec_fn=lambda mine=mine: os.sched_setaffinity(0, mine),
                )  # fmt: skip
                running.append((seed, process))
                taken[seed] = mine
            seed, process = running.pop(0)
            if process.wait():
                raise UserError(f"seed {seed} stopped with code {process.returncode}, see above.")
            free.append(taken.pop(seed))
    finally:
        for _, process in running:
            process.terminate()


def _main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fgjax.study", description=__doc__)
    parser.add_argument("config", help="such as configs/aircraft.py:lapm,demo")
    parser.add_argument("study", help="such as table5; `list` shows what the method has")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="seeds trained at once (1)")
    parser.add_argument("--workdir", type=pathlib.Path, help="default runs/studies/<config>")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                        help="override a field of the config in every row")  # fmt: skip
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    main.setup()
    config = load_config(options.config)
    config = override(config, parse_overrides(config, options.set))
    studies = methods.studies(config)
    if options.study not in studies:
        listed = "; ".join(f"{name}: {study.title}" for name, study in studies.items())
        if options.study == "list":
            print(listed.replace("; ", "\n"))
            return
        raise UserError(f"study {options.study!r} is not known; there are {listed}.")
    study = studies[options.study]
    root = options.workdir or pathlib.Path("runs") / "studies" / config.name
    folder, pool = root / options.study, root / "stages"
    if options.jobs > 1:
        _in_parallel(arguments, options)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    summaries = summarize(study, run_study(config, study, seeds, folder, pool))
    if options.jobs == 1 and options.seeds == 1 and options.first_seed:
        return  # one seed of a parallel study; the caller writes the table
    words = [a for a in arguments if not a.startswith(("--workdir", "--jobs"))]
    table = markdown(study, summaries, "python -m fgjax.study " + " ".join(words), len(seeds))
    (folder / f"{options.study}.md").write_text(table)
    draw = plot_surface if study.axes else plot
    draw(study, summaries, folder / f"{options.study}.png")
    print(table)


if __name__ == "__main__":
    command_line.run(_main)

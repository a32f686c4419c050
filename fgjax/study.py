"""A table or figure of a paper, row by row and seed by seed.

fgjax study aircraft:lapm,demo list                       what the method has
fgjax study aircraft:lapm,demo table5 --seeds=3           train, measure, write table and picture
fgjax study aircraft:lapm,demo table5 --seeds=3 --publish add the numbers to results/*.csv
fgjax study aircraft:lapm,demo baseline --rows=LAPM      some of the rows

Where a study searches, its rows first find their settings on held-out training data (seed 0).
Rows share the stages in which they agree, finished rows are skipped, a stopped study goes on; with
--publish also rows that are in results/ already, in a fresh clone, too.
"""

import dataclasses
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

from fgjax import command_line, config_files, main, methods, results, tables
from fgjax.config import Config, Row, Study, flatten, followed_by, override
from fgjax.errors import UserError
from fgjax.results import Record

log = logging.getLogger(__name__)


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


_PLACES = ("data.data_dir", "data.manual_dir", "data.path", "data.annotations")


def without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are published: where files lie on this machine is nobody's business."""
    return {k: "FOLDER" if k in _PLACES and v else v for k, v in settings.items()}


class Runner:
    """Trains the rows of a study, or finds them trained or published.

    Args:
      config: without the settings.
      name: of the study among its method's.
      settings: overrides of every row.
      folder: where each run has its workdir.
      pool: of stages that rows share.
      published: folder of results/*.csv to read and add to; None for neither.
      rows: names of those that are wanted; all by default.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        settings: dict[str, Any],
        folder: pathlib.Path,
        pool: pathlib.Path,
        published: pathlib.Path | None = None,
        rows: tuple[str, ...] = (),
    ):
        self._config, self._settings = config, settings
        self._base = override(config, settings)
        self.name, self.study = name, with_rows(study_of(config, name), rows)
        self._folder, self._pool, self._published = folder, pool, published

    def searching(self) -> "Runner":
        """The runner of what the study's rows try before they are measured."""
        name = f"{self.name}_search"
        rows = tuple(row.name for row in self.study.tried().rows)
        folder = self._folder.with_name(name)
        return Runner(self._config, name, self._settings, folder, self._pool, self._published, rows)

    def choose(self, tried: list[tables.Summary]) -> None:
        """Give each row that searches the best of what it tried."""
        search = self.study.search
        assert search is not None
        scores = {summary.row.name: summary.main.mean for summary in tried}
        rows = []
        for row in self.study.rows:
            if row.search:
                best = max(search.candidates, key=lambda one: scores[f"{row.name}: {one}"])
                log.info("%s: %s was best on what was held out", row.name, best)
                overrides = followed_by(row.overrides, search.candidates[best])
                row = dataclasses.replace(row, overrides=overrides, note=best)
            rows.append(row)
        self.study = dataclasses.replace(self.study, rows=tuple(rows), search=None)

    def run(self, seeds: list[int]) -> dict[str, list[dict]]:
        """Results of every row with every seed, {row: [{"metrics", …} of each seed]}."""
        found: dict[str, list[dict]] = {row.name: [] for row in self.study.rows}
        self._refuse_unfit(seeds)
        for seed in seeds:
            for row in self.study.rows:
                found[row.name].append(self._one(row, seed))
        return found

    def _refuse_unfit(self, seeds: list[int]) -> None:
        """No row may be refused after others were trained for hours."""
        unfinished = [
            override(self._base, {**self.values(row), "seed": seed})
            for row in self.study.rows
            for seed in seeds[:1]
            if not (self._workdir(row, seed) / "results.json").exists()
        ]
        main.refuse_unfit(unfinished)

    def values(self, row: Row) -> dict[str, Any]:
        """What a row overrides, with what it computes from the config."""
        return {k: v(self._base) if callable(v) else v for k, v in row.overrides.items()}

    def _workdir(self, row: Row, seed: int) -> pathlib.Path:
        return self._folder / f"{_slug(row.name)}-seed{seed}"

    def _one(self, row: Row, seed: int) -> dict:
        values = self.values(row)
        blanks = self._blanks(row, values, seed)
        known = self._known(blanks)
        if known is not None:
            log.info("— %s, seed %d: published already", row.name, seed)
            return {"metrics": known}
        config = override(self._base, {**values, "seed": seed})
        workdir = self._workdir(row, seed)
        done = workdir / "results.json"
        if done.exists():
            main.claim(workdir, config)
            result = json.loads(done.read_text())
        else:
            log.info("— %s, seed %d", row.name, seed)
            result = main.run(config, workdir, pool=self._pool, figures=False)
        if self._published is not None:
            results.publish(self._published, blanks, result)
        return result

    def _blanks(self, row: Row, values: dict[str, Any], seed: int) -> list[Record]:
        """What a row publishes: a record for each of its metrics, still without a value."""
        settings, papers = without_places(self._settings), tables.papers_of(self.study, row)
        return [
            Record(
                config=self._config.name, study=self.name, row=row.name,
                settings=results.canonical(settings),
                overrides=results.canonical({**settings, **values}), seed=str(seed), n=1,
                metric=metric, value=0.0, paper=str(papers.get(metric, "")), note=row.note,
            )
            for metric in tables.metrics_of(self.study, row)
        ]  # fmt: skip

    def _known(self, blanks: list[Record]) -> dict[str, float] | None:
        """The row's numbers where results/ has all of them, from this study or another."""
        if self._published is None:
            return None
        found = {
            record.metric: record for record in results.read(self._published)
            if (record.config, record.overrides, record.seed)
            == (blanks[0].config, blanks[0].overrides, blanks[0].seed)
        }  # fmt: skip
        if not all(blank.metric in found for blank in blanks):
            return None
        same = [results.relabelled(found[blank.metric], blank) for blank in blanks]
        results.append(self._published, same)
        return {record.metric: record.value for record in same}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def study_of(config: Config, name: str) -> Study:
    """A study of the config's method.

    Raises:
      UserError: there is none of that name; lists those that there are.
    """
    studies = methods.studies(config)
    if name not in studies:
        listed = "; ".join(f"{name}: {study.title}" for name, study in studies.items())
        raise UserError(f"study {name!r} is not known; there are {listed}.")
    return studies[name]


def with_rows(study: Study, names: tuple[str, ...]) -> Study:
    """The study with some of its rows, in its own order; no names: all of them.

    Raises:
      UserError: a name is none of its rows'; lists them.
    """
    known = [row.name for row in study.rows]
    for name in names:
        if name not in known:
            raise UserError(f"--rows: this study has no row {name!r}; it has {'; '.join(known)}.")
    if not names:
        return study
    return dataclasses.replace(study, rows=tuple(r for r in study.rows if r.name in names))


def _in_parallel(arguments: list[str], seeds: list[int], jobs: int) -> None:
    """One process per seed, `jobs` at a time; seeds share no stages."""
    waiting = list(seeds)
    running: list[tuple[int, subprocess.Popen]] = []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = max(len(cores) // jobs, 1)
    free = [set(cores[i * share : (i + 1) * share]) or set(cores) for i in range(jobs)]
    taken: dict[int, set[int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed, mine = waiting.pop(0), free.pop()
                command = [sys.executable, "-m", "fgjax.study", *arguments, "--jobs=1",
                           f"--first-seed={seed}", "--seeds=1"]  # fmt: skip
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL,
                    preexec_fn=lambda mine=mine: mine and os.sched_setaffinity(0, mine),
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


def _parser():
    parser = command_line.parser_of("study", __doc__)
    parser.add_argument("config", help="such as aircraft:lapm,demo")
    parser.add_argument("study", help="such as table5; `list` shows what the method has")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--rows", default="", metavar="ROW;ROW", help="only these (all)")
    parser.add_argument("--jobs", type=int, default=1, help="seeds trained at once (1)")
    parser.add_argument("--workdir", type=pathlib.Path, help="default runs/studies/CONFIG")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the config in every row",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="add every number to results/CONFIG.csv, and skip those that are there",
    )
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("results"),
        help="the folder that --publish reads and writes (results)",
    )
    return parser


def command(arguments: list[str] | None = None) -> None:
    """`fgjax study`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    main.setup()
    config = config_files.load(options.config)
    if options.study == "list":
        for name, study in methods.studies(config).items():
            print(f"{name:20s} {study.title} ({study.source})")
        return
    flags = study_of(config, options.study).flags
    if flags:  # refused here, before anything trains, where the config has no such flag
        config = config_files.load(config_files.with_flags(options.config, flags))
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, but must be at least 1.")
    root = options.workdir or pathlib.Path("runs") / "studies" / config.name
    folder = root / options.study
    runner = Runner(
        config,
        options.study,
        parse_overrides(config, options.set),
        folder,
        root / "stages",
        options.results if options.publish else None,
        tuple(name.strip() for name in options.rows.split(";") if name.strip()),
    )
    if any(row.search for row in runner.study.rows) and runner.study.search:
        searching = runner.searching()
        tried = tables.summarize(searching.study, searching.run([0]))
        _write(searching, tried, folder.with_name(searching.name), arguments, 1)
        runner.choose(tried)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    if options.jobs > 1:
        _in_parallel(arguments, seeds, options.jobs)
    found = runner.run(seeds)
    summaries = tables.summarize(runner.study, found)
    if options.jobs == 1 and options.seeds == 1 and options.first_seed:
        return  # one seed of a parallel study; the caller writes the table
    _write(runner, summaries, folder, arguments, len(seeds))


def _write(runner: Runner, summaries, folder: pathlib.Path, arguments, seeds: int) -> None:
    from fgjax.figures import study as figures

    ours = ("--workdir", "--jobs", "--publish", "--results")
    words = " ".join(word for word in arguments if not word.startswith(ours))
    table = tables.document(runner.study, summaries, f"fgjax study {words}", seeds)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{runner.name}.md").write_text(table)
    draw = (figures.bars, figures.curve, figures.surface)[len(runner.study.axes)]
    draw(runner.study, summaries, folder / f"{runner.name}.png")
    print(table)
    print(f"report: {_report(runner.study, summaries, folder, f'fgjax study {words}')}")


def _report(study: Study, summaries, folder: pathlib.Path, command: str) -> pathlib.Path:
    from fgjax.report import study as report

    _, _, *further = tables.columns(study, summaries)
    lines = [
        report.Line(
            one.row.name,
            tuple(100 * value for value in one.main.values),
            tuple(cells[place] for _, cells in further),
        )
        for place, one in enumerate(summaries)
    ]
    columns = [head for head, _ in further]
    return report.write(
        folder, title=study.title, source=study.source, metric=study.metric, columns=columns,
        lines=lines, command=command,
    )  # fmt: skip


if __name__ == "__main__":
    command_line.run(command)

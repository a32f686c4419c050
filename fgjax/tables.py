"""Tables of README and site, made from results/*.csv.

python -m fgjax.tables            writes them into README.md and docs/**/*.md
python -m fgjax.tables --check    says which are out of date

A text asks for a table between two comments, and what stands between them is replaced:

<!-- table: aircraft-lapm-demo table5 -->
<!-- end of table -->
"""

import argparse
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from fgjax import command_line, config_files, methods, results
from fgjax.config import Row, Study
from fgjax.errors import UserError
from fgjax.results import Record


@dataclasses.dataclass(frozen=True)
class Cell:
    """A metric over seeds, in its own unit.

    Attributes:
      values: of the single runs; of one entry, the mean, where only that is known.
      spread: standard deviation (ddof 1); 0 for one run.
      n: runs behind it.
    """

    values: tuple[float, ...]
    spread: float
    n: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell":
        """Of single runs."""
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(tuple(values), spread, len(values))

    def percent(self, *, each: bool = False) -> str:
        """`62.5 ± 17.7`, with the single values in brackets where wanted and known."""
        text = f"{100 * self.mean:.1f}"
        if self.n > 1:
            text += f" ± {100 * self.spread:.1f}"
        if each and len(self.values) > 1:
            text += f" ({', '.join(f'{100 * value:.1f}' for value in self.values)})"
        return text


@dataclasses.dataclass(frozen=True)
class Summary:
    """One row of a study's table."""

    row: Row
    main: Cell
    also: tuple[Cell, ...] = ()
    notes: tuple[Cell, ...] = ()
    remark: str = ""


def metrics_of(study: Study, row: Row) -> tuple[str, ...]:
    """Names of all that a row shows: its metric, `also`, `notes`."""
    return (row.metric or study.metric, *study.also, *study.notes)


def papers_of(study: Study, row: Row) -> dict[str, float]:
    """The paper's numbers for a row, by metric."""
    main = {} if row.paper is None else {row.metric or study.metric: row.paper}
    return {**main, **row.paper_also}


def summarize(study: Study, found: dict[str, list[dict]]) -> list[Summary]:
    """Means and spreads over the seeds' results.json, {row: [results, …]}."""
    summaries = []
    for row in study.rows:
        columns = [
            Cell.of([results.metric_of(one["metrics"], name) for one in found[row.name]])
            for name in metrics_of(study, row)
        ]
        count = 1 + len(study.also)
        also, notes = tuple(columns[1:count]), tuple(columns[count:])
        summaries.append(Summary(row, columns[0], also, notes, row.note))
    return summaries


def from_records(study: Study, records: list[Record]) -> list[Summary]:
    """The same from published numbers; rows without any are left out."""
    summaries = []
    for row in study.rows:
        own = newest([record for record in records if record.row == row.name])
        if not own:
            continue
        cells = {}
        for name in metrics_of(study, row):
            cells[name] = _cell([record for record in own if record.metric == name])
        also = tuple(cells[name] for name in study.also)
        notes = tuple(cells[name] for name in study.notes)
        remark = "; ".join(dict.fromkeys(record.note for record in own if record.note))
        summaries.append(Summary(row, cells[row.metric or study.metric], also, notes, remark))
    return summaries


def newest(own: list[Record]) -> list[Record]:
    """Single runs, where there are any, in place of the mean that stood for older ones."""
    return [record for record in own if record.seed != ""] or own


_NOTHING = Cell((), 0.0, 0)


def _cell(own: list[Record]) -> Cell:
    single = [record.value for record in own if record.seed != ""]
    if single:
        return Cell.of(single)
    if not own:
        return _NOTHING
    return Cell((own[0].value,), float(own[0].deviation or 0), own[0].n)


def markdown(study: Study, summaries: list[Summary]) -> list[str]:
    """The lines of the table, a grid where the study has two axes."""
    return _grid_lines(study, summaries) if len(study.axes) == 2 else _row_lines(study, summaries)


def _row_lines(study: Study, summaries: list[Summary]) -> list[str]:
    heads, cells = zip(*columns(study, summaries))
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(line) + " |" for line in zip(*cells)]


def columns(study: Study, summaries: list[Summary]) -> list[tuple[str, list[str]]]:
    """(head, its cells): the row's name, its metric, and all that any row has beside them."""
    remarks = {summary.remark for summary in summaries}
    some = remarks - {""} if len(remarks) > 1 else set()  # one of all rows stands above the table
    names = {row.metric for row in study.rows if row.metric}
    found = [
        ("row", [s.row.name + (f" ({s.remark})" if s.remark in some else "") for s in summaries]),
        (f"{study.metric if not names else 'top1'} (%)",
         [s.main.percent(each=True) for s in summaries]),
    ]  # fmt: skip
    for place, name in enumerate(study.also):
        theirs = any(name in s.row.paper_also for s in summaries)
        if any(s.also[place].values for s in summaries):
            cells = [_beside(s.also[place], s.row.paper_also.get(name)) for s in summaries]
            found.append((f"{name} (%)" + " / paper" * theirs, cells))
    for place, name in enumerate(study.notes):
        counts = [s.notes[place] for s in summaries]
        if any(cell.values for cell in counts):
            cells = [f"{cell.mean:,.0f}" if cell.values else "" for cell in counts]
            found.append((name.replace("_", " "), cells))
    if any(s.row.paper is not None for s in summaries):
        papers = ["" if s.row.paper is None else f"{s.row.paper}" for s in summaries]
        found.append(("paper (%)", papers))
    return found


def _beside(cell: Cell, paper: float | None) -> str:
    """Ours, and the paper's where it has one."""
    ours = cell.percent() if cell.values else ""
    return ours if paper is None else f"{ours} / {paper}"


def grid(study: Study, summaries: list[Summary]) -> tuple[list, list, dict[tuple, Summary]]:
    """Values of both axes in ascending order, and the row at each pair of them."""
    cells = {tuple(s.row.overrides[axis] for axis in study.axes): s for s in summaries}
    first, second = (sorted({place[axis] for place in cells}) for axis in range(2))
    return first, second, cells


def _grid_lines(study: Study, summaries: list[Summary]) -> list[str]:
    first, second, cells = grid(study, summaries)
    across, down = (axis.rsplit(".", 1)[-1].replace("_", " ") for axis in study.axes)
    lines = [
        f"| {down} \\ {across} | " + " | ".join(map(str, first)) + " |",
        "|" + "---|" * (len(first) + 1),
    ]
    for low in second:
        found = [cells[high, low] for high in first]
        lines.append(f"| {low} | " + " | ".join(one.main.percent() for one in found) + " |")
    return lines


def document(study: Study, summaries: list[Summary], command: str, seeds: int) -> str:
    """A table as a file of its own, with the command that makes it."""
    lines = [
        f"# {study.title}", "", f"{study.source}. Mean ± standard deviation over {seeds} seed(s); "
        f"single values in brackets.", "", f"    {command}", "",
    ]  # fmt: skip
    return "\n".join([*lines, *markdown(study, summaries)]) + "\n"


# Tables in texts

_TABLE = re.compile(
    r"(<!-- table: (?P<config>\S+) (?P<study>\S+) -->\n)(?P<old>.*?)(<!-- end of table -->)", re.S
)


def studies_of(config: str) -> dict[str, Study]:
    """The studies of a config by its name in results, such as aircraft-hdcl-demo.

    Raises:
      UserError: no shipped config has that name.
    """
    name, _, words = config.partition("-")
    return methods.studies(config_files.load(f"{name}:{words.replace('-', ',')}"))


def published(config: str, study: str, records: list[Record]) -> str:
    """The table of a study as README and site show it: one for each settings that it was run with.

    Raises:
      UserError: nothing is published of it.
    """
    own = [record for record in records if (record.config, record.study) == (config, study)]
    if not own:
        raise UserError(f"results/ has nothing of study {study} of {config}: publish it first.")
    described = studies_of(config)[study]
    blocks = []
    for settings in dict.fromkeys(record.settings for record in own):
        these = [record for record in own if record.settings == settings]
        summaries = from_records(described, these)
        blocks.append("\n".join(
            [_source_line(described, config, study, settings, these), "",
             *markdown(described, summaries)])
        )  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def _source_line(study: Study, config: str, name: str, settings: str, own: list[Record]) -> str:
    """Where the numbers come from, in one line."""
    own = [r for row in study.rows for r in newest([r for r in own if r.row == row.name])]
    single = {record.seed for record in own if record.seed != ""}
    seeds = len(single) or max(record.n for record in own)
    word, _, rest = config.partition("-")
    command = f"fgjax study {word}:{rest.replace('-', ',')} {name} --seeds={seeds}"
    command += "".join(f" --set {k}={v}" for k, v in json.loads(settings).items())
    remarks = {record.note for record in own}
    notes = remarks.pop() if len(remarks) == 1 else ""
    commits = ", ".join(dict.fromkeys(record.commit for record in own if record.commit))
    names = ", ".join(dict.fromkeys(record.dataset for record in own if record.dataset))
    few = "1 seed" if seeds == 1 else f"{seeds} seeds"
    what = "; ".join(part for part in (f"On {names}", few, notes, f"commit {commits}") if part)
    theirs = any(row.paper is not None for row in study.rows)
    beside = f" The paper's column: {study.source}." if theirs else ""
    return f"*{what}.{beside}* `{command}`"


def fill(text: str, records: list[Record]) -> str:
    """A text with its tables as the records have them."""
    return _TABLE.sub(
        lambda m: m[1] + "\n" + published(m["config"], m["study"], records) + "\n" + m[5], text
    )


def texts(root: pathlib.Path) -> list[pathlib.Path]:
    """README.md and the site's pages."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def command(arguments: list[str] | None = None) -> int:
    """`python -m fgjax.tables`."""
    parser = argparse.ArgumentParser(
        prog="python -m fgjax.tables", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if old")
    options = parser.parse_args(arguments)
    root, old = pathlib.Path(__file__).parents[1], []
    records = results.read(root / "results")
    for path in texts(root):
        text = path.read_text(encoding="utf-8")
        filled = fill(text, records)
        if filled != text:
            old.append(path.relative_to(root))
            if not options.check:
                path.write_text(filled, encoding="utf-8")
    done = "out of date" if options.check else "written"
    print("\n".join(f"{done}: {path}" for path in old) or "all tables are up to date")
    return 1 if old and options.check else 0


if __name__ == "__main__":
    command_line.run(command)

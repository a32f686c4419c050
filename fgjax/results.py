"""Measured numbers as data: results/*.csv, one row a number, written by `fgjax study --publish`.

A row says what was trained (config, overrides, seed), what was measured (metric, value), under
what (dataset, device, versions, commit) and what the paper has. Older numbers stand as mean,
deviation and n, without a seed. `fgjax.tables` makes the tables of README and site from it.
"""

import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import filelock

from fgjax import hosts
from fgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
      config: name of the config, such as aircraft-lapm-demo.
      study: and
      row: of the study, as its method names them.
      settings: what the whole study was run with, {field: value} as JSON.
      overrides: all that differs from the config, the settings included, as JSON.
      seed: of the run; "" for a mean over `n` seeds.
      n: runs behind the value.
      metric: its name in results.json.
      value: as measured; accuracies as fractions.
      deviation: over n seeds (ddof 1); "" for a single run.
      dataset: its name and
      dataset_fingerprint: what it was made of.
      device: what it ran on.
      versions: of Python and the packages that compute.
      commit: of fgjax.
      paper: the paper's number for this metric, in per cent.
      note: what a reader has to know.
    """

    config: str
    study: str
    row: str
    settings: str
    overrides: str
    seed: str
    n: int
    metric: str
    value: float
    deviation: str = ""
    dataset: str = ""
    dataset_fingerprint: str = ""
    device: str = ""
    versions: str = ""
    commit: str = ""
    paper: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two records the same measurement."""
        return (self.config, self.study, self.row, self.settings, self.overrides, self.seed,
                self.metric)  # fmt: skip


FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def canonical(values: dict[str, Any]) -> str:
    """{field: value} as JSON that is the same for equal values."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def read(folder: pathlib.Path) -> list[Record]:
    """All records of a folder of CSV files.

    Raises:
      UserError: a file is not one of ours; names it and the line.
    """
    records = []
    for path in sorted(folder.glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != FIELDS:
                raise UserError(f"{path} is not a table of results: its columns are not {FIELDS}.")
            for line in reader:
                try:
                    records.append(
                        Record(**{**line, "n": int(line["n"]), "value": float(line["value"])})
                    )
                except (TypeError, ValueError) as error:
                    where = f"{path}, line {reader.line_num}"
                    raise UserError(f"{where}, is no result ({error}): mend it.") from error
    return records


def append(folder: pathlib.Path, records: list[Record]) -> int:
    """Add records that are not there yet to FOLDER/CONFIG.csv; returns how many were new.

    Several processes may append at the same time; a line is written whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    added = 0
    for config in dict.fromkeys(record.config for record in records):
        path = folder / f"{config}.csv"
        with filelock.FileLock(str(path) + ".lock"):
            text = path.read_text(encoding="utf-8") if path.exists() else _line(FIELDS)
            known = {record.key for record in read(folder) if record.config == config}
            new = {r.key: r for r in records if r.config == config and r.key not in known}
            lines = [_line([str(getattr(r, name)) for name in FIELDS]) for r in new.values()]
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_text(text + "".join(lines), encoding="utf-8")
            temporary.replace(path)
            added += len(new)
        pathlib.Path(str(path) + ".lock").unlink(missing_ok=True)
    return added


def publish(folder: pathlib.Path, blanks: list[Record], result: dict[str, Any]) -> None:
    """Add a run's numbers: each blank with the value that its metric has in results.json."""
    where = where_measured(result["protocol"])
    append(
        folder,
        [
            dataclasses.replace(blank, value=metric_of(result["metrics"], blank.metric), **where)
            for blank in blanks
        ],
    )


def relabelled(record: Record, blank: Record) -> Record:
    """The same measurement as a row of another study."""
    names = ("study", "row", "settings", "overrides", "paper", "note")
    return dataclasses.replace(record, **{name: getattr(blank, name) for name in names})


def _line(values) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """An entry of results.json's metrics; `stages.enhance.top1` looks inside.

    Raises:
      UserError: there is no such number.
    """
    value: Any = metrics
    for part in [name] if name in metrics else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        raise UserError(
            f"results.json has no number {name!r}; it has {', '.join(sorted(metrics))}."
        )
    return float(value)


def where_measured(protocol: dict[str, Any]) -> dict[str, str]:
    """Columns dataset … commit of a run that has just been measured here."""
    shown = ("jax", "flax", "optax", "numpy")
    packages = protocol["packages"]
    versions = [f"python {protocol['python']}", *(f"{name} {packages[name]}" for name in shown)]
    return {
        "dataset": protocol["dataset"],
        "dataset_fingerprint": protocol["dataset_fingerprint"],
        "device": f"{protocol['devices']} × {device_name(protocol['device_kind'])}",
        "versions": "; ".join(versions),
        "commit": commit(),
    }


def device_name(kind: str) -> str:
    """The accelerator's name, or the processor's with the cores that this process may use."""
    if kind != "cpu":
        return kind
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name.strip()}, {hosts.cores()} cores"


@functools.cache
def commit() -> str:
    """The checkout's commit, with "+" where files differ from it; "" for an installed package."""
    here = pathlib.Path(__file__).parent
    try:
        git = functools.partial(
            subprocess.run, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        if git(["git", "ls-files", __file__]).stdout.strip() == "":
            return ""  # installed inside somebody else's checkout
        changed = git(["git", "status", "--porcelain", "--", str(here)]).stdout.strip()
        return git(["git", "rev-parse", "--short=10", "HEAD"]).stdout.strip() + "+" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return ""

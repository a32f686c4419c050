"""Every row of every study, and of what it searches, is built as it would be trained."""

import json

import pytest

from fgjax import config_files, dry_run, methods, study
from fgjax.config import Config, flatten, override

CONFIGS = ("lapm", "ghns", "hdcl", "hdcl,recognition", "ccfr", "probe")


def rows_of(config: Config, tmp_path) -> dict[str, Config]:
    """Each row as its runner would train it, {"study: row": config}.

    Rows that differ in rates, weights and passes alone are built alike: one of them, and of a sweep
    the ends. All rows' values are checked in test_study.py.
    """
    found = {}
    flags = set(config.name.split("-")[2:]) - {"demo"}
    for name, described in methods.studies(config).items():
        if set(described.flags) != flags:
            continue  # its rows are those of a config with, or without, that flag
        runner = study.Runner(config, name, {}, tmp_path, tmp_path)
        rows = described.rows
        for row in (rows[0], rows[-1]) if described.axes else rows:
            wanted = override(config, runner.values(row))
            built = {key: value for key, value in flatten(wanted).items()
                     if key.startswith("data.")
                     or not (isinstance(value, float) or key.endswith("epochs"))}  # fmt: skip
            found.setdefault(repr(built), (f"{name}: {row.name}", wanted))
    return dict(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_every_row_can_be_built(method, tmp_path):
    """Through the method's own code, with shapes in the place of images and weights."""
    config = config_files.load(f"aircraft:{method},demo")
    rows = rows_of(config, tmp_path)
    assert len(rows) > 3
    for name, wanted in rows.items():
        try:
            planned = dry_run.plan(wanted, tmp_path / "run", compiles=False)
        except Exception as error:
            raise AssertionError(f"{name} cannot run") from error
        assert planned.costs or method == "probe", name


def test_a_searchs_rows_are_among_them(tmp_path):
    rows = rows_of(config_files.load("aircraft:hdcl,demo"), tmp_path)
    tried = [wanted for name, wanted in rows.items() if "_search: " in name]
    assert len(tried) > 5 and all(wanted.data.held_out > 0 for wanted in tried)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_what_a_study_reads_is_what_a_run_measures(method, request):
    """Its own measures, of all rows; what only some rows have stands beside those rows."""
    config = config_files.load(f"aircraft:{method},demo")
    finished = request.getfixturevalue(f"finished_{method.split(',')[-1]}")
    results = json.loads((finished / "results.json").read_text())
    measured = set(flatten_json(results["metrics"]))
    for name, described in methods.studies(config).items():
        changed = {field for row in described.rows for field in row.overrides}
        if described.flags == tuple(method.split(",")[1:]) and "data.zero_shot" not in changed:
            read = {described.metric, *described.also, *described.notes}
            if not results["protocol"]["held_out_images"]:
                read = {one for one in read if not one.startswith("held_out_")}
            assert read <= measured, name


def flatten_json(tree, prefix=""):
    """Dotted names of all values."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten_json(value, f"{prefix}{name}.")
        else:
            yield prefix + name

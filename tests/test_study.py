"""Studies: tables from results, what is published, what is skipped, where it stops."""

import functools
import json
import pathlib

import numpy as np
import pytest

from fgjax import config_files, main, methods, results, study, tables
from fgjax.config import Row, Study, check, override
from fgjax.errors import UserError
from fgjax.figures import study as figures

STUDY = Study(
    "Fusion", "Paper Table 1",
    (Row("all", {}, 90.0), Row("parts alone", {}, None, "parts_top1")),
    notes=("images",), also=("parts_top1",),
)  # fmt: skip


def found(*pairs):
    return [{"metrics": {"top1": a, "parts_top1": b, "images": 1000}} for a, b in pairs]


@pytest.fixture
def summaries():
    every = found((0.5, 0.25), (0.75, 0.5))
    return tables.summarize(STUDY, {"all": every, "parts alone": every})


def test_rows_may_have_a_metric_of_their_own(summaries):
    assert summaries[0].main.values == (0.5, 0.75) and summaries[1].main.values == (0.25, 0.5)
    assert summaries[0].main.mean == 0.625
    assert summaries[0].main.spread == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert summaries[0].also[0].values == (0.25, 0.5)


def test_the_table(summaries):
    table = tables.document(STUDY, summaries, "fgjax study x", 2)
    assert "| row | top1 (%) | parts_top1 (%) | images | paper (%) |" in table
    assert "| all | 62.5 ± 17.7 (50.0, 75.0) | 37.5 ± 17.7 | 1,000 | 90.0 |" in table
    assert "| parts alone | 37.5 ± 17.7 (25.0, 50.0) | 37.5 ± 17.7 | 1,000 |  |" in table
    assert "    fgjax study x\n" in table


def test_the_papers_numbers_stand_beside_all_that_they_are_for():
    rows = (Row("A", {}, 90.0, paper_also={"parts_top1": 80.5}), Row("B", {}))
    described = Study("T", "Paper", rows, also=("parts_top1", "other"), notes=("images",))
    records = [
        record(config="c", study="s", row=name, metric=metric, value=value)
        for name, metric, value in (
            ("A", "top1", 0.5), ("A", "parts_top1", 0.25), ("B", "top1", 0.75), ("B", "other", 0.5),
        )
    ]  # fmt: skip
    lines = tables.markdown(described, tables.from_records(described, records))
    assert lines == [
        "| row | top1 (%) | parts_top1 (%) / paper | other (%) | paper (%) |",
        "|---|---|---|---|---|",
        "| A | 50.0 | 25.0 / 80.5 |  | 90.0 |",
        "| B | 75.0 |  | 50.0 |  |",
    ]  # a note that no row has is left out
    assert tables.papers_of(described, rows[0]) == {"top1": 90.0, "parts_top1": 80.5}


def test_two_columns_may_have_one_head():
    """Rows have metrics of their own, and top1 stands beside them."""
    described = Study("T", "P", (Row("A", {}, None, "parts_top1"),), also=("top1",))
    lines = tables.markdown(described, tables.summarize(described, {"A": found((0.5, 0.25))}))
    assert lines[0] == "| row | top1 (%) | top1 (%) |" and lines[2] == "| A | 25.0 | 50.0 |"


def test_a_studys_report_has_the_tables_columns(tmp_path):
    rows = (Row("A", {}, 90.0, paper_also={"parts_top1": 80.5}),)
    described = Study("T", "Paper", rows, also=("parts_top1",))
    summaries = tables.summarize(described, {"A": found((0.5, 0.25))})
    page = study._report(described, summaries, tmp_path, "fgjax study …").read_text()
    for shown in ("parts_top1 (%) / paper", "25.0 / 80.5", "paper (%)", "90.0"):
        assert shown in page


def test_one_seed_has_no_spread():
    one = tables.summarize(STUDY, {name: found((0.5, 0.25)) for name in ("all", "parts alone")})
    assert one[0].main.spread == 0.0 and one[0].main.percent(each=True) == "50.0"


GRID = Study(
    "Thresholds", "Paper Figure 6",
    tuple(Row(f"{x} {y}", {"a.x": x, "b.y_value": y}) for x in (1, 2, 3) for y in (0.5, 0.25)),
    axes=("a.x", "b.y_value"),
)  # fmt: skip


def test_a_grid_is_a_table_of_both_axes_and_a_surface(tmp_path):
    every = {row.name: found((row.overrides["a.x"] / 4, 0), (0.5, 0)) for row in GRID.rows}
    summaries = tables.summarize(GRID, every)
    table = "\n".join(tables.markdown(GRID, summaries))
    assert "| y value \\ x | 1 | 2 | 3 |" in table
    assert "| 0.25 | 37.5 ± 17.7 | 50.0 ± 0.0 | 62.5 ± 17.7 |" in table
    assert table.index("| 0.25") < table.index("| 0.5 |")
    figures.surface(GRID, summaries, tmp_path / "surface.png")
    assert (tmp_path / "surface.png").stat().st_size > 10_000


def test_one_axis_is_a_table_of_rows_and_a_curve_from_left_to_right(tmp_path, monkeypatch):
    study = Study(
        "Samples", "Paper Table 6",
        tuple(Row(f"n = {n}", {"method.n": n}, paper) for n, paper in ((9, 80.0), (3, None))),
        axes=("method.n",),
    )  # fmt: skip
    summaries = tables.summarize(study, {"n = 9": found((0.5, 0)), "n = 3": found((0.25, 0))})
    assert "| n = 9 | 50.0 | 80.0 |" in tables.markdown(study, summaries)
    drawn = []
    monkeypatch.setattr(
        figures.drawing, "save", lambda figure, path, *, caption: drawn.append(figure.axes[0])
    )
    figures.curve(study, summaries, tmp_path / "curve.png")
    lines = [line.get_xydata().tolist() for line in drawn[0].get_lines()]
    assert [[3, 25], [9, 50]] in lines and [[9, 80]] in lines


def test_every_study_of_every_method_names_numbers_that_exist():
    """A row's metric, and what stands beside it, can be read from nested results."""
    assert results.metric_of({"a": {"b": {"top1": 0.5}}}, "a.b.top1") == 0.5
    assert results.metric_of({"recall@1": 1}, "recall@1") == 1.0
    with pytest.raises(UserError, match=r"no number 'a\.c'; it has a"):
        results.metric_of({"a": {"b": 1}}, "a.c")


@pytest.mark.parametrize("method", ["lapm", "ghns", "hdcl", "recognition", "ccfr", "probe"])
def test_no_study_dies_after_training(method, request, copy_of):
    """What its rows show is in the results of a run such as theirs."""
    folder = request.getfixturevalue(f"finished_{method}")
    config = main.open_run(folder).config
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    recognition, unseen = method == "recognition", {"recall@1": 0.5, "map@r": 0.25}
    for name, described in methods.studies(config).items():
        if method in ("hdcl", "recognition") and bool(described.flags) != recognition:
            continue
        tried = name.endswith("_search")
        for row in described.rows:
            wanted = override(config, row.overrides)
            check(wanted, devices=4)
            assert not tried or wanted.data.held_out > 0, "nothing to decide by"
        found = unseen if (method, name) == ("probe", "unseen") else metrics
        found = {described.metric: 0.5} if tried else found
        every = {row.name: [{"metrics": found}] * 2 for row in described.rows}
        summaries = tables.summarize(described, every)
        assert len(summaries) == len(described.rows)
        assert "nan" not in "\n".join(tables.markdown(described, summaries))


def test_a_study_brings_the_flag_that_it_needs(monkeypatch, tmp_path):
    """Without it, Table 7 would train a search and then look for an accuracy."""
    asked = []
    monkeypatch.setattr(main, "setup", lambda: None)
    monkeypatch.setattr(study.Runner, "run", lambda self, seeds: asked.append(self._config) or {})
    monkeypatch.setattr(tables, "summarize", lambda *_: [])
    monkeypatch.setattr(study, "_write", lambda *_: None)
    for words in ("aircraft:hdcl,demo", "aircraft:hdcl,demo,recognition"):
        study.command([words, "table7", f"--workdir={tmp_path}"])
    assert [c.name for c in asked] == ["aircraft-hdcl-demo-recognition"] * 2
    assert all(c.method.recognition and not c.data.zero_shot for c in asked)
    assert config_files.with_flags("cub", ("recognition",)) == "cub:recognition"


PROTOCOL = {
    "dataset": "synthetic_aircraft", "dataset_fingerprint": "f00", "devices": 1,
    "device_kind": "cpu", "python": "3.11.7",
    "packages": {"jax": "0.10", "flax": "0.12", "optax": "0.2", "numpy": "2"},
}  # fmt: skip


@pytest.fixture
def small_study(tiny_config, monkeypatch, tmp_path):
    """A study of two rows whose training is a count; (runner, what was trained)."""
    rows = (Row("plain", {}, 89.2), Row("wide", {"method.alpha": 2.0}))
    both = Study("C", "D", (Row("plain", {}, 89.2, paper_also={"top5": 95.5}),), also=("top5",))
    studies = {
        "small": Study("Small", "Table 9", rows), "again": Study("A", "B", rows[:1]), "both": both,
    }  # fmt: skip
    monkeypatch.setattr(methods, "studies", lambda config: studies)
    trained = []

    def run(config, workdir, *, pool, figures):
        trained.append((config.method.alpha, config.seed))
        workdir.mkdir(parents=True)
        metrics = {"top1": config.method.alpha / 10, "top5": 0.9}
        result = {"metrics": metrics, "protocol": PROTOCOL}
        (workdir / "results.json").write_text(json.dumps(result))
        main.claim(workdir, config)
        return result

    monkeypatch.setattr(main, "run", run)

    def make(name="small", where="one"):
        folder = tmp_path / where
        return study.Runner(
            tiny_config, name, {"method.samples": 9}, folder, folder / "pool", tmp_path / "results"
        )

    return make, trained, tmp_path / "results"


def test_numbers_are_published_as_they_come(small_study):
    make, trained, folder = small_study
    make().run([0, 1])
    assert trained == [(1.0, 0), (2.0, 0), (1.0, 1), (2.0, 1)]
    records = results.read(folder)
    assert [(r.row, r.seed, r.value) for r in records] == [
        ("plain", "0", 0.1), ("wide", "0", 0.2), ("plain", "1", 0.1), ("wide", "1", 0.2),
    ]  # fmt: skip
    assert records[0].config == "tiny" and records[0].study == "small" and records[0].n == 1
    assert json.loads(records[1].overrides) == {"method.alpha": 2.0, "method.samples": 9}
    assert json.loads(records[1].settings) == {"method.samples": 9}
    assert (records[0].paper, records[1].paper) == ("89.2", "")
    assert records[0].dataset_fingerprint == "f00" and "jax 0.10" in records[0].versions
    assert "core" in records[0].device


def test_each_number_is_published_beside_the_papers_for_the_same_metric(small_study):
    make, _, folder = small_study
    make("both").run([0])
    assert [(r.metric, r.paper) for r in results.read(folder)] == [
        ("top1", "89.2"),
        ("top5", "95.5"),
    ]


def test_where_files_lie_is_not_published():
    settings = {"data.manual_dir": "/home/me/birds", "data.path": "", "method.alpha": 1.2}
    shown = {"data.manual_dir": "FOLDER", "data.path": "", "method.alpha": 1.2}
    assert study.without_places(settings) == shown


def test_what_is_published_is_not_trained_again_even_in_a_fresh_clone(small_study):
    make, trained, folder = small_study
    make().run([0])
    trained.clear()
    again = make(where="another clone").run([0, 1])
    assert trained == [(1.0, 1), (2.0, 1)]
    assert again["wide"][0] == {"metrics": {"top1": 0.2}}
    before = (folder / "tiny.csv").read_text()
    make(where="a third").run([0, 1])
    assert (folder / "tiny.csv").read_text() == before and len(trained) == 2


def test_a_row_of_another_study_is_known_and_relabelled(small_study):
    make, trained, folder = small_study
    make().run([0])
    trained.clear()
    make("again", where="other").run([0])
    assert trained == []
    assert [r.study for r in results.read(folder)] == ["small", "small", "again"]


def test_a_run_that_finished_before_publishing_is_published(small_study):
    make, trained, folder = small_study
    make().run([0])
    (folder / "tiny.csv").unlink()
    make().run([0])
    assert len(trained) == 2 and len(results.read(folder)) == 2


def test_another_dataset_or_file_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"x\.csv is not a table of results"):
        results.read(tmp_path)
    (tmp_path / "x.csv").write_text(
        ",".join(results.FIELDS) + "\n" + ",".join("x" * len(results.FIELDS)) + "\n"
    )
    with pytest.raises(UserError, match=r"x\.csv, line 2, is no result"):
        results.read(tmp_path)


def test_some_rows_of_a_study(tiny_config):
    whole = study.study_of(tiny_config, "baseline")
    some = study.with_rows(whole, ("LAPM", "cross-entropy, equal epochs"))
    assert [row.name for row in some.rows] == ["cross-entropy, equal epochs", "LAPM"]
    assert study.with_rows(whole, ()) is whole
    with pytest.raises(UserError, match="no row 'lapm'; it has cross-entropy, equal epochs; "):
        study.with_rows(whole, ("lapm",))


def test_an_unknown_study_lists_what_there_is(tiny_config):
    with pytest.raises(UserError, match=r"'table9' is not known.*table5: Adaptive margin"):
        study.study_of(tiny_config, "table9")


@pytest.mark.parametrize(
    ("setting", "says"),
    [("method.nothing=1", "no field 'method.nothing'"), ("seed=x", "'x' is not a int")],
)
def test_settings_are_checked(tiny_config, setting, says):
    with pytest.raises(UserError, match=says):
        study.parse_overrides(tiny_config, [setting])


# The published tables


ROOT = pathlib.Path(__file__).parents[1]


def record(**changes):
    values = {
        "config": "aircraft-lapm-demo", "study": "table7", "row": "1:1", "settings": "{}",
        "overrides": "{}", "seed": "0", "n": 1, "metric": "top1", "value": 0.5, "commit": "abc",
    }  # fmt: skip
    return results.Record(**{**values, **changes})


def test_tables_in_texts_are_replaced_between_their_comments():
    text = "before\n<!-- table: aircraft-lapm-demo table7 -->\nold\n<!-- end of table -->\nafter\n"
    records = [record(), record(seed="1", value=0.7), record(row="2:1", n=3, seed="", value=0.4,
               deviation="0.01", note="earlier reduction of images")]  # fmt: skip
    filled = tables.fill(text, records)
    assert filled.startswith("before\n") and filled.endswith("\nafter\n") and "old" not in filled
    assert "| 1:1 | 60.0 ± 14.1 (50.0, 70.0) | 89.23 |" in filled
    assert "| 2:1 (earlier reduction of images) | 40.0 ± 1.0 | 88.79 |" in filled
    assert "| 1:3 " not in filled and "`fgjax study aircraft:lapm,demo table7 --seeds=2`" in filled
    assert tables.fill(filled, records) == filled


def test_single_runs_take_the_place_of_an_older_mean():
    records = [record(seed="", n=3, value=0.9, deviation="0.1", note="earlier"), record()]
    assert "| 1:1 | 50.0 |" in tables.published("aircraft-lapm-demo", "table7", records)


def test_nothing_published_is_said():
    with pytest.raises(UserError, match="nothing of study table7 of aircraft-lapm-demo"):
        tables.published("aircraft-lapm-demo", "table7", [])


def test_the_tables_of_readme_and_site_are_those_of_results():
    records = results.read(ROOT / "results")
    assert records
    for path in tables.texts(ROOT):
        text = path.read_text(encoding="utf-8")
        assert tables.fill(text, records) == text, f"{path}: run python -m fgjax.tables"


def test_every_published_number_belongs_to_a_row_that_exists():
    studies_of = functools.cache(tables.studies_of)
    for one in results.read(ROOT / "results"):
        described = studies_of(one.config)[one.study]
        (row,) = [row for row in described.rows if row.name == one.row]
        assert one.paper == str(tables.papers_of(described, row).get(one.metric, "")), one
        assert one.n >= 1 and (one.n > 1) == (one.seed == ""), one
        counts = one.metric in described.notes
        assert counts or 0 <= one.value <= 1, one
        assert counts or one.seed != "" or 0 <= float(one.deviation) < 0.2, one

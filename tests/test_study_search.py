"""What studies do before they train: search on what is held out, refuse what cannot run."""

import dataclasses

import pytest

from fgjax import config_files, main, methods, results, study, tables
from fgjax.config import Row, Search, Study, followed_by, override
from fgjax.errors import UserError
from tests import tiny

RATE = "method.embedding.optimizer.learning_rate"
SEARCHING = Study(
    "Losses", "Paper Table 1",
    (Row("A", {"method.loss": "crl"}), Row("B", {"method.loss": "triplet"}),
     Row("C", {"method.loss": "scda"}, search=False)),
    metric="recall@1",
    search=Search(
        {"low": {RATE: lambda config: config.method.embedding.optimizer.learning_rate / 2},
         "high": {RATE: 0.5}},
        metric="held_out_recall@1",
        overrides={"data.held_out": 0.25, "method.embedding.epochs": 5},
    ),
)  # fmt: skip


def test_rows_find_their_settings_on_what_is_held_out(monkeypatch, tmp_path, capsys):
    """One seed of each candidate decides; what was tried is a table, too, and is not run again."""
    trained = []

    def train(config, workdir, **_):
        method = config.method
        rate, held = method.embedding.optimizer.learning_rate, config.data.held_out
        trained.append((method.loss, rate, method.embedding.epochs, held, config.seed))
        better = {"crl": rate, "triplet": -rate}.get(method.loss, 0)
        return {"metrics": {"held_out_recall@1": better, "recall@1": 1 - rate}, "protocol": {}}

    config = config_files.load("aircraft:hdcl,demo")
    rate, epochs = config.method.embedding.optimizer.learning_rate, config.method.embedding.epochs
    described = {"losses": SEARCHING, "losses_search": SEARCHING.tried()}
    monkeypatch.setattr(methods, "studies", lambda _: described)
    monkeypatch.setattr(main, "setup", lambda: None)
    monkeypatch.setattr(main, "run", train)
    monkeypatch.setattr(main, "refuse_unfit", lambda configs: None)
    monkeypatch.setattr(results, "where_measured", lambda protocol: {})
    places = [f"--workdir={tmp_path / 'runs'}", "--publish", f"--results={tmp_path / 'results'}"]
    words = ["aircraft:hdcl,demo", "losses", "--first-seed=1", "--seeds=2", *places]
    study.command(words)
    tried = [("crl", rate / 2, 5, 0.25, 0), ("crl", 0.5, 5, 0.25, 0),
             ("triplet", rate / 2, 5, 0.25, 0), ("triplet", 0.5, 5, 0.25, 0)]  # fmt: skip
    assert trained[:4] == tried
    measured = [("crl", 0.5, epochs, 0.0), ("triplet", rate / 2, epochs, 0.0),
                ("scda", rate, epochs, 0.0)]  # fmt: skip
    assert trained[4:] == [(*one, seed) for seed in (1, 2) for one in measured]
    shown = capsys.readouterr().out
    assert "| A: high | 50.0 |" in shown and "| A (high) | 50.0 " in shown
    assert "| B (low) |" in shown and "| C | " in shown
    text = tables.published("aircraft-hdcl-demo", "losses", results.read(tmp_path / "results"))
    assert "| B (low) |" in text and "| C |" in text
    study.command(words)
    assert len(trained) == 10, "all of it was published"


def test_what_a_candidate_computes_it_computes_of_its_row():
    """Twice the passes of a row that has four times the config's are eight times."""
    epochs = "method.embedding.epochs"
    of_row = {epochs: lambda c: 4 * c.method.embedding.epochs, "seed": 3}
    then = {epochs: lambda c: 2 * c.method.embedding.epochs, "method.loss": "crl"}
    config = config_files.load("aircraft:hdcl,demo")
    found = override(config, followed_by(of_row, then))
    assert found.method.embedding.epochs == 8 * config.method.embedding.epochs
    assert (found.seed, found.method.loss) == (3, "crl")
    assert override(config, followed_by(of_row, {})).method.embedding.epochs * 2 == (
        found.method.embedding.epochs
    )
    search = Search({"twice": {epochs: then[epochs]}}, metric="held_out_recall@1", overrides={})
    tried = dataclasses.replace(SEARCHING, rows=(Row("A", of_row),), search=search).tried()
    assert override(config, tried.rows[0].overrides) == override(config, {
        epochs: 8 * config.method.embedding.epochs, "seed": 3})  # fmt: skip


def test_a_row_that_cannot_run_is_refused_before_the_first_trains(data_dir, tmp_path, monkeypatch):
    """Annotated regions come last in their study, and folders of photographs have none."""
    trained = []
    monkeypatch.setattr(main, "run", lambda config, *_, **__: trained.append(config))
    described = Study(
        "Regions", "Ours",
        (Row("learned", {}), Row("annotated", {"method.boxes": "annotated"})),
    )  # fmt: skip
    monkeypatch.setattr(methods, "studies", lambda _: {"boxes": described})
    config = tiny.ccfr_config(data_dir)
    whole = main.fetch(config)
    train, test = (dataclasses.replace(split, parts=None) for split in (whole.train, whole.test))
    bare = dataclasses.replace(whole, train=train, test=test)
    monkeypatch.setattr(main, "fetch", lambda _: bare)
    runner = study.Runner(config, "boxes", {}, tmp_path, tmp_path / "stages")
    with pytest.raises(UserError, match=r"boxes is annotated, but .* has no part boxes: choose le"):
        runner.run([0])
    assert not trained

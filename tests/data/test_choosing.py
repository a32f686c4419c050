"""How many processes read: measured where a config leaves it open, and never what they read."""

import dataclasses
import logging
import multiprocessing
import time

import numpy as np
import pytest

from fgjax import main
from fgjax.config import MEASURED, Data, override
from fgjax.data import choosing, datasets
from fgjax.errors import UserError
from fgjax.training import run
from tests import tiny


@pytest.mark.parametrize("fastest", [0, 4])
def test_what_reads_most_is_chosen_and_said(fastest, monkeypatch, caplog):
    tried = []

    def rate(split, data):
        tried.append(data.workers)
        return 500.0 if data.workers == fastest else 400.0

    monkeypatch.setattr(choosing, "rate", rate)
    monkeypatch.setattr(choosing, "candidates", lambda: (0, 4))
    with caplog.at_level(logging.INFO):
        assert choosing.workers(None, Data(workers=MEASURED)) == fastest
    assert tried == [0, 4]
    assert f"data.workers={fastest}" in caplog.text and "by 4 processes" in caplog.text


def test_who_says_how_many_waits_for_no_measurement(monkeypatch):
    monkeypatch.setattr(choosing, "rate", None)
    assert [choosing.workers(None, Data(workers=n)) for n in (0, 7)] == [0, 7]


def test_a_rate_is_of_what_comes_after_the_first_batch(monkeypatch):
    clock = [100.0]  # the start takes long, and each batch 20 ms
    monkeypatch.setattr(choosing.time, "monotonic", lambda: clock[0])

    def batches():
        clock[0] += 50
        while True:
            yield {"label": np.zeros(8)}
            clock[0] += 0.02

    assert choosing.steady(batches(), 1.0) == pytest.approx(8 / 0.02)
    assert choosing.steady(batches(), 1.0, after=4) == pytest.approx(8 / 0.02)


@pytest.mark.slow
def test_threads_and_processes_really_read(data_dir, caplog, monkeypatch):
    monkeypatch.setattr(choosing, "candidates", lambda: (0, 2))
    data = dataclasses.replace(tiny.probe_config(data_dir).data, workers=MEASURED)
    split = datasets.of_config(data).train
    others = set(multiprocessing.active_children())
    with caplog.at_level(logging.INFO):
        assert choosing.workers(split, data) in (0, 2)
    assert "by threads" in caplog.text and "processes" in caplog.text
    stop = time.monotonic() + 30
    while set(multiprocessing.active_children()) - others:
        assert time.monotonic() < stop, "its processes do not end"
        time.sleep(0.2)


@pytest.mark.usefixtures("relaxed")
def test_a_runs_first_loop_measures_and_all_use_it(data_dir, tmp_path, monkeypatch):
    asked, used = [], []
    monkeypatch.setattr(choosing, "workers", lambda split, data: asked.append(data.workers) or 0)
    real = run.fit

    def fit(model, loss, batches, **options):
        used.append(batches.data.workers)
        return real(model, loss, batches, **options)

    monkeypatch.setattr(run, "fit", fit)
    config = override(tiny.hdcl_config(data_dir), {"data.workers": MEASURED})
    main.run(config, tmp_path / "run", figures=False)
    assert asked == [MEASURED] and len(used) > 1 and set(used) == {0}
    assert config.data.workers == MEASURED  # the caller's own is left alone
    main.run(config, tmp_path / "run", figures=False)
    assert asked == [MEASURED], "a finished run reads nothing, and measures nothing"


def test_processes_that_do_not_read_are_not_chosen(monkeypatch, caplog):
    def rate(split, data):
        if data.workers:
            raise UserError("a worker that reads images ended.")
        return 5.0

    monkeypatch.setattr(choosing, "rate", rate)
    monkeypatch.setattr(choosing, "candidates", lambda: (0, 4))
    assert choosing.workers(None, Data(workers=MEASURED)) == 0
    assert "4 processes do not read: a worker" in caplog.text
    monkeypatch.setattr(choosing, "candidates", lambda: (0,))
    monkeypatch.setattr(choosing, "rate", None)  # nothing to choose, nothing to measure
    assert choosing.workers(None, Data(workers=MEASURED)) == 0


def test_an_image_that_is_none_is_an_error_of_its_own(monkeypatch):
    def rate(split, data):
        raise UserError("a.jpg cannot be decoded.")

    monkeypatch.setattr(choosing, "rate", rate)
    monkeypatch.setattr(choosing, "candidates", lambda: (0, 4))
    with pytest.raises(UserError, match=r"a\.jpg"):
        choosing.workers(None, Data(workers=MEASURED))

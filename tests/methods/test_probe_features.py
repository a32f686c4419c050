"""The table of features: what is in it is not made again, and what is not, is."""

import dataclasses

import numpy as np
import pytest

from fgjax import main
from fgjax.config import check, override
from fgjax.data.loading import Reader
from fgjax.data.splits import few_of_each_class
from fgjax.methods.probe import features
from fgjax.training.run import Run
from tests import tiny


@pytest.fixture
def run(data_dir, tiny_dataset, tmp_path):
    config = tiny.probe_config(data_dir)
    config.data.data_dir = str(tmp_path / "data")  # a table of its own
    return Run(config, tiny_dataset, tmp_path / "run")


class Counted:
    """`embeddings_of`, and which rows it was asked for."""

    def __init__(self, monkeypatch):
        self.rows, self._plain = [], features.embeddings_of
        monkeypatch.setattr(features, "embeddings_of", self)

    def __call__(self, run, model, embed, reader, rows, **options):
        self.rows.append(rows.tolist())
        return self._plain(run, model, embed, reader, rows, **options)


def of(run, split, model=None):
    reader = Reader(split, run.config.data.image_size, run.config.data.augmentation)
    return features.unit_features(run, model or run.build_model(), reader, batch_size=24)


def without(split, rows):
    """A split of some of the rows."""
    kept = np.array(rows)
    return dataclasses.replace(
        split, source=[split.source[i] for i in rows], labels=split.labels[kept],
        boxes=split.boxes[kept], filenames=tuple(split.filenames[i] for i in rows),
    )  # fmt: skip


@pytest.mark.usefixtures("relaxed")
def test_a_table_grows_by_what_is_new(run, monkeypatch):
    split = run.dataset.test
    few = without(split, range(0, 10))
    counted = Counted(monkeypatch)
    first = of(run, few)
    assert counted.rows == [list(range(10))]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-4)
    np.testing.assert_array_equal(of(run, few), first)
    assert len(counted.rows) == 1  # nothing was looked at again
    # In another order, with two new images, one of them twice.
    grown = without(split, [11, 3, 12, 11, 0])
    found = of(run, grown)
    assert counted.rows[1:] == [[0, 2]]
    np.testing.assert_array_equal(found[[1, 4]], first[[3, 0]])
    np.testing.assert_array_equal(found[0], found[3])
    monkeypatch.setattr(features, "data_root", lambda _: run.workdir / "elsewhere")
    np.testing.assert_allclose(of(run, grown), found, atol=1e-5)  # as if made at once


@pytest.mark.usefixtures("relaxed")
def test_views_are_drawn_by_content_and_kept_apart(run):
    few = without(run.dataset.test, range(6))
    turned = without(run.dataset.test, range(5, -1, -1))
    reader = Reader(few, 32, run.config.data.augmentation)
    back = Reader(turned, 32, run.config.data.augmentation)
    model = run.build_model()
    of_view = lambda reader, view: features.unit_features(  # noqa: E731
        run, model, reader, batch_size=24, view=view
    )
    plain, one, two = (of_view(reader, view) for view in (0, 1, 2))
    assert not np.allclose(one, two) and not np.allclose(one, plain)
    np.testing.assert_allclose(of_view(back, 1), one[::-1], atol=1e-6)
    (run.workdir.parent / "data" / "features").rename(run.workdir.parent / "data" / "away")
    np.testing.assert_allclose(of_view(back, 1), one[::-1], atol=1e-5)  # as if made at once


@pytest.mark.usefixtures("relaxed")
def test_a_run_with_views_fits_all_and_judges_the_images(data_dir, tmp_path):
    config = override(tiny.probe_config(data_dir), {"method.views": 3, "method.head": "knn"})
    results = main.run(config, tmp_path / "run", figures=False)
    images = results["protocol"]["train_images"] - results["protocol"]["held_out_images"]
    memory = np.load(tmp_path / "run" / "head" / "head.npz")["memory"]
    assert len(memory) == 3 * images
    stored = np.load(tmp_path / "run" / "features" / "features.npz")
    assert stored["further"].shape == (2, *stored["train"].shape)


@pytest.mark.usefixtures("relaxed")
def test_other_weights_sizes_and_poolings_have_tables_of_their_own(run):
    model = run.build_model()
    split = run.dataset.test

    def folder(changes, model=model):
        changed = Run(override(run.config, changes), run.dataset, run.workdir)
        reader = Reader(split, changed.config.data.image_size, changed.config.data.augmentation)
        return features.folder_of(changed, model, reader)

    own = folder({})
    assert folder({}) == own
    # The head is drawn anew for each seed, and no part of a feature.
    other = run.build_model()
    other.fc.kernel[...] = other.fc.kernel[...] + 1
    assert folder({}, other) == own
    kernel = other.conv1.kernel
    kernel[...] = kernel[...] + 1
    found = {own, folder({}, other), folder({"data.image_size": 48}), folder({"pooling": "max"})}
    assert len(found) == 4


@pytest.mark.usefixtures("relaxed")
def test_a_table_that_cannot_be_written_stops_nobody(run, tmp_path, caplog, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "features").write_text("a file where a folder should be")
    few = without(run.dataset.test, range(4))
    assert of(run, few).shape[0] == 4
    assert "not kept for other runs" in caplog.text


def test_few_of_each_class_grow_from_fewer():
    labels = np.repeat(np.arange(5), [1, 4, 9, 20, 3])
    one, four = (few_of_each_class(labels, shots, seed=7) for shots in (1, 4))
    assert set(one) <= set(four) and (np.diff(four) > 0).all()
    np.testing.assert_array_equal(np.bincount(labels[one]), 1)
    np.testing.assert_array_equal(np.bincount(labels[four]), [1, 4, 4, 4, 3])
    assert few_of_each_class(labels, 4, seed=8).tolist() != four.tolist()


@pytest.mark.usefixtures("relaxed")
def test_a_run_learns_from_few(data_dir, tmp_path):
    config = override(tiny.probe_config(data_dir), {"data.shots": 1})
    run = Run(config, main.fetch(config), tmp_path / "few")
    assert len(run.train_indices) == run.dataset.num_classes
    results = main.run(config, tmp_path / "run", figures=False)
    assert results["protocol"]["images_per_class"] == 1
    assert results["protocol"]["probabilities"].startswith("uncalibrated")
    stage = np.load(tmp_path / "run" / "head" / "head.npz")
    assert np.isfinite(stage["weights"]).all()


@pytest.mark.parametrize("make", [tiny.shrink, tiny.ghns_config, tiny.hdcl_config,
                                  tiny.recognition_config, tiny.ccfr_config])  # fmt: skip
def test_every_method_takes_few_of_each_class(make, data_dir, tiny_dataset, tmp_path):
    config = override(make(data_dir), {"data.shots": 2})
    check(config, devices=1)
    run = Run(config, tiny_dataset, tmp_path)
    labels = np.asarray(run.dataset.train.labels)[run.train_indices]
    assert (np.bincount(labels)[np.unique(labels)] == 2).all()

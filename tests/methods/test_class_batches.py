"""HDCL's batches of classes fit the classes that train; refused before anything is trained."""

import pytest

from fgjax.data.datasets import load_dataset
from fgjax.errors import UserError
from fgjax.methods import hdcl
from fgjax.methods.hdcl.method import batch_size
from fgjax.training.run import Run
from tests import tiny


@pytest.fixture
def config(data_dir):
    """The demo's shape at 32 px, four images a class: 12 classes train, 12 are searched."""
    return tiny.hdcl_config(data_dir)


@pytest.mark.parametrize(("loss", "size", "fits"), [("n_pairs", 32, True), ("triplet", 8, True),
                                                    ("triplet", 48, False)])  # fmt: skip
def test_batches_of_classes_fit_those_that_train(config, tmp_path, loss, size, fits):
    """A third of the 12 classes is held out: 8 train. Said before anything is trained."""
    config.method.loss, config.data.held_out = loss, 1 / 3
    config.method.embedding.batch_size = size
    data = load_dataset(config.data.dataset, data_dir=config.data.data_dir, zero_shot=True)
    run = Run(config, data, tmp_path)
    if fits:
        hdcl.check(run)
        assert batch_size(run, config.method) == (16 if loss == "n_pairs" else size)
    else:
        with pytest.raises(UserError, match=r"of each class need \d+ classes, but 8 train"):
            hdcl.check(run)

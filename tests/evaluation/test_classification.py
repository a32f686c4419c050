"""Top-k with ties, mean accuracy of classes, confusions: by hand and against plain loops."""

import math
import types
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.config import Augmentation
from fgjax.data import loading
from fgjax.evaluation import classification


def metrics(logits, labels):
    return classification.classification_metrics(np.array(logits, float), np.array(labels))


def by_loops(logits, labels):
    """The definitions, image by image, in float64."""
    hits = {k: [] for k in (1, 3, 5)}
    of_class, surprise = {}, []
    for row, label in zip(np.asarray(logits, np.float64), labels):
        rivals = sum(row[c] >= row[label] for c in range(len(row)) if c != label)
        for k, found in hits.items():
            found.append(rivals < k)
        of_class.setdefault(label, []).append(rivals < 1)
        peak = max(row)
        surprise.append(peak + math.log(sum(math.exp(x - peak) for x in row)) - row[label])
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        **{f"top{k}": mean(found) for k, found in hits.items()},
        "mean_class_accuracy": mean([mean(found) for found in of_class.values()]),
        "cross_entropy": mean(surprise),
    }


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9), st.booleans())
def test_metrics_are_those_of_plain_loops(seed, images, classes, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32) * 3
    if ties:
        logits = np.round(logits / 3)
    labels = rng.integers(0, classes, images)
    found, wanted = classification.classification_metrics(logits, labels), by_loops(logits, labels)
    assert found == {name: pytest.approx(value, rel=1e-9, abs=1e-12)
                     for name, value in wanted.items()}  # fmt: skip


def test_fractions_by_hand():
    """Ranks 0, 1, 3, 5 and 0 of six classes; class 0 has three images, class 2 two."""
    logits = [
        [9, 5, 4, 3, 2, 1],
        [8, 9, 1, 1, 1, 1],
        [4, 9, 8, 7, 1, 1],
        [6, 5, 1, 4, 3, 2],
        [0, 0, 2, 1, 1, 1],
    ]
    found = metrics(logits, [0, 0, 0, 2, 2])
    wanted = {
        "top1": Fraction(2, 5),
        "top3": Fraction(3, 5),
        "top5": Fraction(4, 5),
        "mean_class_accuracy": (Fraction(1, 3) + Fraction(1, 2)) / 2,
    }
    assert {name: found[name] for name in wanted} == {
        name: pytest.approx(float(value)) for name, value in wanted.items()
    }


def test_ties_go_against_the_image():
    """A network that says nothing is right about nothing, though argmax would give it class 0."""
    same = metrics(np.zeros((4, 6)), [0, 1, 2, 5])
    assert (same["top1"], same["top3"], same["top5"]) == (0, 0, 0)
    assert same["mean_class_accuracy"] == 0
    assert same["cross_entropy"] == pytest.approx(math.log(6))
    one = metrics([[2.0, 2.0, 1.0, 1.0, 0.0, 0.0]], [0])
    assert (one["top1"], one["top3"]) == (0, 1)


def test_fewer_classes_than_five_make_top_5_certain():
    found = metrics(np.eye(3)[[1, 2, 0]], [0, 1, 2])
    assert (found["top1"], found["top3"], found["top5"]) == (0, 1, 1)
    assert metrics([[0.3]], [0]) == {
        "top1": 1, "top3": 1, "top5": 1, "mean_class_accuracy": 1, "cross_entropy": 0,
    }  # fmt: skip


def test_large_logits_keep_their_cross_entropy():
    found = metrics([[1e4, 0.0], [-1e4, 1e4]], [1, 1])
    assert found["cross_entropy"] == pytest.approx(5000)


def test_the_most_confused_pairs_by_hand():
    """1 → 2 three times, 0 → 1 twice, 2 → 0 and 2 → 1 once; what is right does not count."""
    pairs = [(1, 2)] * 3 + [(0, 1)] * 2 + [(2, 0), (2, 1)] + [(0, 0)] * 9
    labels, guesses = map(np.array, zip(*pairs))
    logits = np.eye(3)[guesses]
    wanted = [(1, 2, 3), (0, 1, 2), (2, 0, 1), (2, 1, 1)]
    assert classification.most_confused(logits, labels) == wanted
    assert classification.most_confused(logits, labels, count=2) == wanted[:2]
    assert classification.most_confused(np.eye(4), np.arange(4)) == []
    many = classification.most_confused(np.eye(6)[np.arange(36) % 6], np.arange(36) // 6)
    assert many == [(i, j, 1) for i in range(6) for j in range(6) if i != j][:10]


class Linear(nnx.Module):
    """Logits of an image's mean colour, other ones while training."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.5]]))
        self.training = nnx.Variable(jnp.array(1.0))

    def eval(self, **attributes):
        self.training[...] = jnp.array(0.0)

    def __call__(self, images):
        mean = jnp.mean(images.astype(jnp.float32), axis=(1, 2)) / 255
        return {"logits": mean @ self.kernel[...] + self.training[...]}


class Colours(loading.Reader):
    """A reader of images of one colour each."""

    def __init__(self, count):
        super().__init__(types.SimpleNamespace(labels=np.arange(count) % 2), 4, Augmentation())
        colours = np.random.default_rng(0).integers(0, 255, (count, 3)).astype(np.uint8)
        object.__setattr__(self, "colours", colours)

    def read(self, index):
        return np.broadcast_to(self.colours[index], (4, 4, 3)).copy(), None


def test_logits_come_in_the_order_of_the_indices():
    """Seven images in batches of four devices' worth: the padding of the last one is cut off."""
    reader, indices = Colours(11), np.array([3, 9, 0, 10, 5, 5, 1])
    wanted = reader.colours[indices] / 255 @ [[1.0, 0.0], [0.0, 2.0], [3.0, 0.5]]
    found = classification.predict_logits(Linear(), reader, indices, batch_size=3)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    parts = list(
        classification.iterate(
            Linear(), reader, indices, batch_size=3, outputs_of=classification.logits_of
        )
    )
    assert [rows.tolist() for _, rows in parts] == [[3, 9, 0, 10], [5, 5, 1]]
    assert all(isinstance(outputs["logits"], np.ndarray) for outputs, _ in parts)


def test_a_model_on_one_device_is_copied_to_all():
    model, batch = Linear(), {"image": np.zeros((4, 2, 2, 3), np.uint8)}
    first = classification.forward(model, classification.logits_of, batch)["logits"]
    assert len(model.kernel[...].devices()) == jax.device_count() == 4
    model.kernel[...] = model.kernel[...] * 2  # its values are looked at again
    second = classification.forward(model, classification.logits_of, batch)["logits"]
    np.testing.assert_allclose(second - 1, 2 * (first - 1), rtol=1e-5)
    shape = lambda model, batch: {"shape": batch["image"] * 0 + 1}  # noqa: E731
    assert set(classification.forward(model, shape, batch)) == {"shape"}


def test_probabilities_are_those_of_float32_rows():
    logits = np.array([[[1.0, 2.0, 4.0], [500.0, 500.0, -500.0]]])
    found = classification.softmax(logits)
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(found, raised / raised.sum(axis=-1, keepdims=True), rtol=1e-6)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    assert classification.softmax(np.zeros(2, np.float16)).tolist() == [0.5, 0.5]

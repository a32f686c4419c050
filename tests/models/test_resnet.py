"""Networks: shapes, batch norm in PyTorch's terms, and weights from torchvision's keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from fgjax import models
from fgjax.errors import UserError
from fgjax.models import layers, resnet


def build(name="resnet18", classes=5):
    return models.build(name, num_classes=classes, rngs=nnx.Rngs(0))


def torchvision_file(path, name="resnet18", classes=1000, seed=0):
    """Random weights under torchvision's key names."""
    rng = np.random.default_rng(seed)
    architecture = resnet.ARCHITECTURES[name]
    arrays = {}

    def conv(key, out, inner, size):
        arrays[f"{key}.weight"] = rng.normal(0, 0.05, (out, inner, size, size)).astype(np.float32)

    def norm(key, width):
        arrays[f"{key}.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        arrays[f"{key}.bias"] = rng.normal(0, 0.1, width).astype(np.float32)
        arrays[f"{key}.running_mean"] = rng.normal(0, 0.1, width).astype(np.float32)
        arrays[f"{key}.running_var"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        arrays[f"{key}.num_batches_tracked"] = np.array(1)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inner = 64
    expansion = architecture.block.expansion
    for stage, (depth, width) in enumerate(zip(architecture.depths, architecture.widths), 1):
        for block in range(depth):
            key = f"layer{stage}.{block}"
            if expansion == 1:
                shapes = [(width, inner, 3), (width, width, 3)]
            else:
                shapes = [(width, inner, 1), (width, width, 3), (width * 4, width, 1)]
            for number, (out, into, size) in enumerate(shapes, 1):
                conv(f"{key}.conv{number}", out, into, size)
                norm(f"{key}.bn{number}", out)
            if block == 0 and (stage > 1 or inner != width * expansion):
                conv(f"{key}.downsample.0", width * expansion, inner, 1)
                norm(f"{key}.downsample.1", width * expansion)
            inner = width * expansion
    arrays["fc.weight"] = rng.normal(0, 0.01, (classes, inner)).astype(np.float32)
    arrays["fc.bias"] = rng.normal(0, 0.01, classes).astype(np.float32)
    safetensors.numpy.save_file(arrays, path)
    return arrays


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048)),
     ("resnet_small", (24, 48, 96)), ("efficientnet_lite0", (24, 40, 112, 1280)),
     pytest.param("efficientnet_lite2", (24, 48, 120, 1280), marks=pytest.mark.slow)],
)  # fmt: skip
def test_named_maps(name, channels):
    model = nnx.eval_shape(lambda: build(name))
    outputs = jax.eval_shape(lambda: nnx.clone(build(name))(jnp.zeros((2, 64, 64, 3))))
    found = [outputs[f"stage{i + 1}"].shape for i in range(len(channels))]
    assert tuple(shape[-1] for shape in found) == channels
    assert outputs["pooled"].shape == (2, channels[-1])
    assert outputs["logits"].shape == (2, 5)
    assert models.last_map(outputs).shape == found[-1]
    assert model.features == channels[-1]


def test_batch_norm_follows_pytorch():
    """Normalised by the biased variance, remembered by the unbiased one, momentum 0.1."""
    x = np.random.default_rng(0).normal(2, 3, (4, 3, 3, 2)).astype(np.float32)
    norm = layers.BatchNorm(2)
    found = norm(jnp.asarray(x))
    flat = x.reshape(-1, 2).astype(np.float64)
    wanted = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    norm.use_running_average = True
    before = norm.var[...]
    norm(jnp.asarray(x))
    np.testing.assert_array_equal(norm.var[...], before)


def test_convolution_rewrites_change_nothing():
    """1×1 as a product and pooling as shifted slices equal XLA's own, gradients included."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 9, 9, 4)).astype(np.float32))
    conv = layers.Conv(4, 6, 1, stride=2, rngs=nnx.Rngs(0))

    def plain(x):
        return jax.lax.conv_general_dilated(
            x, conv.kernel[...], (2, 2), [(0, 0), (0, 0)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    def pool(x):
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
            [(0, 0), (1, 1), (1, 1), (0, 0)],
        )  # fmt: skip

    for ours, theirs in (
        (conv, plain),
        (lambda x: layers.max_pool(x, 3, stride=2, padding=1), pool),
    ):
        np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
        gradients = [jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (ours, theirs)]
        np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_every_key_of_torchvision_finds_its_place(tmp_path, name):
    arrays = torchvision_file(tmp_path / "w.safetensors", name)
    model = build(name)
    notes = models.load_pretrained(model, str(tmp_path / "w.safetensors"))
    assert len(notes) == 1 and "new head" in notes[0]
    np.testing.assert_array_equal(
        model.stages[1][0].conv2.kernel[...],
        arrays["layer2.0.conv2.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        model.stages[3][0].downsample[1].var[...], arrays["layer4.0.downsample.1.running_var"]
    )
    whole = build(name, classes=1000)
    assert models.load_pretrained(whole, str(tmp_path / "w.safetensors")) == []
    np.testing.assert_array_equal(whole.fc.kernel[...], arrays["fc.weight"].T)


def test_what_does_not_fit_is_listed_together(tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = torchvision_file(path)
    del arrays["layer3.1.bn2.weight"]
    arrays["layer1.0.conv1.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    arrays["layer9.extra"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(UserError) as caught:
        models.load_pretrained(build(), str(path))
    text = str(caught.value)
    assert "unmapped key layer9.extra" in text
    assert "layer1.0.conv1.weight has shape (2, 2, 3, 3)" in text
    assert "nothing fills stages.2.1.bn2.scale" in text


def test_sources_that_cannot_be(tmp_path):
    for name in ("none.safetensors", "none.pth", "none.pt", "none.bin"):
        with pytest.raises(UserError, match=f"{name} does not exist"):
            models.resolve(str(tmp_path / name))
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable safetensors"):
        models.load_pretrained(build(), str(tmp_path / "bad.safetensors"))


def test_unknown_backbone():
    with pytest.raises(UserError, match="choose one of"):
        build("resnet5000")

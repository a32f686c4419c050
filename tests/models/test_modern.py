"""ConvNeXt, EfficientNet-B0 and DINOv2: other libraries' keys, places, maps, rematerializing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from fgjax import models
from fgjax.errors import UserError
from fgjax.localization import cam
from fgjax.methods.shared import objects
from fgjax.models import vit
from fgjax.training import fit
from tests.models import golden
from tests.models.small import FAMILIES

GOLDEN = golden.read()
every_family = pytest.mark.parametrize(
    "name",
    [pytest.param(name, id=family, marks=[pytest.mark.slow] * (family != "transformer"))
     for family, name in FAMILIES.items()],
)  # fmt: skip


def build(name, **options):
    """By shapes alone."""
    return nnx.eval_shape(lambda: models.build(name, num_classes=5, rngs=nnx.Rngs(0), **options))


def drawn(name, **options):
    """With numbers in place of shapes: branches that begin at nothing are there, too."""
    model = build(name, **options)
    rng, state = np.random.default_rng(1), nnx.state(model)
    flat = nnx.to_flat_state(state)
    for path, variable in zip(flat.paths, flat.leaves):
        shape = variable.get_value().shape
        if path[-1] in ("scale", "var", "gamma"):
            value = rng.uniform(0.3, 0.8, shape)
        else:
            value = rng.standard_normal(shape) * np.prod(shape[:-1] or (100,)) ** -0.5
        if path[-1] in ("cls_token", "register_tokens", "position_embeddings"):
            value = rng.standard_normal(shape)
        variable.set_value(jnp.asarray(value, jnp.float32))
    return model


def images(*shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype(np.uint8)


def run(model, x, call=lambda model, x: model(x)):
    """In evaluation mode, as one program."""
    model.eval()
    graph, state = nnx.split(model)
    program = jax.jit(lambda s, x: call(nnx.merge(graph, s), x), compiler_options=golden.QUICK)
    return program(state, x)


# Files


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, entry in GOLDEN.items() if entry.get("others")])
def test_another_librarys_file_says_what_that_library_says(name, tmp_path):
    """ConvNeXt's and B0's in transformers, DINOv2's in timm at 518 px."""
    entry = GOLDEN[name]["others"]
    path = tmp_path / "others.safetensors"
    safetensors.numpy.save_file(golden.weights(entry["shapes"]), path)
    norm, *wanted = entry["said"]
    own_norm, *own = golden.projections("others", golden.others(name, path))
    assert own_norm == pytest.approx(norm, rel=1e-4)
    np.testing.assert_allclose(own, wanted, atol=4e-5)


def as_published(arrays):
    """DINOv2's files on the Hub: no classifier, the names of transformers' version 4."""
    names = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
             "o_proj": "output.dense"}  # fmt: skip
    found = {}
    for key, value in arrays.items():
        _, _, inner = key.partition(".")
        for new, old in names.items():
            inner = inner.replace(new, old)
        if not key.startswith("classifier"):
            found[inner] = value
    return found


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_the_published_file_fills_the_same_network(name, tmp_path):
    arrays = golden.weights(GOLDEN[name]["reference"])
    found = []
    for number, content in enumerate((arrays, as_published(arrays))):
        path = tmp_path / f"{number}.safetensors"
        safetensors.numpy.save_file(content, path)
        model = nnx.eval_shape(lambda: models.build(name, num_classes=1000, rngs=nnx.Rngs(0)))
        notes = models.load_pretrained(model, str(path))
        assert len(notes) == number and all("no classifier: a new head" in note for note in notes)
        filled = nnx.to_flat_state(nnx.state(model, nnx.Param))
        found.append({p: v[...] for p, v in zip(filled.paths, filled.leaves) if p[0] != "fc"})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 12 * 18
    for path, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][path])


def test_a_file_without_a_block_is_refused_by_name(tmp_path):
    shapes = GOLDEN["convnext_tiny"]["reference"]
    path = tmp_path / "w.safetensors"
    kept = {k: v for k, v in shapes.items() if not k.startswith("stages.2.blocks.4.mlp.fc1")}
    safetensors.numpy.save_file(golden.weights(kept), path)
    model = build("convnext_tiny")
    with pytest.raises(UserError, match=r"nothing fills stages\.2\.4\.expand\.kernel"):
        models.load_pretrained(model, str(path))


def test_weights_of_another_padding_are_refused_before_they_are_looked_for():
    model = build("efficientnet_b0")
    with pytest.raises(UserError, match=r"another network: .*=timm/tf_efficientnet_b0\.in1k"):
        models.load_pretrained(model, "timm/efficientnet_b0.ra_in1k")


# Places


# torch.nn.functional.interpolate(mode="bicubic") of 0, 1, 4, 9, 16 as a row
LINES = {
    (8, False): [-0.092834, 0.187561, 1.176514, 2.619385, 5.44165, 8.471436, 13.395081, 16.649841],
    (3, False): [0.148148, 4.0, 14.074074],
    (8, True): [-0.071956, 0.243749, 1.128906, 2.847656, 5.347656, 8.628906, 13.488184, 16.50369],
    (3, True): [0.169231, 4.195349, 13.338462],
}


@pytest.mark.parametrize(("wanted", "smooth"), LINES)
def test_lines_are_resampled_as_pytorch_does(wanted, smooth):
    found = vit.resampling(5, wanted, smooth=smooth) @ np.arange(5) ** 2
    np.testing.assert_allclose(found, LINES[wanted, smooth], atol=2e-6)


def test_the_places_of_the_trainings_size_are_untouched():
    model = drawn(FAMILIES["transformer"])
    places = model.embeddings.position_embeddings[...]
    np.testing.assert_array_equal(
        model.embeddings.positions(37, 37).reshape(1, 37 * 37, -1), places[:, 1:]
    )


def test_patches_are_a_convolution_that_leaves_out_what_fills_none():
    model = drawn(FAMILIES["convnext"])
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 11, 14, 3)).astype(np.float32))
    wanted = jax.lax.conv_general_dilated(
        x, model.stem.kernel[...], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(model.stem(x), wanted + model.stem.bias[...], rtol=1e-4, atol=1e-5)


# Maps


@every_family
@pytest.mark.parametrize("pooling", ["average", "max_average"])
def test_a_class_activation_map_adds_up_to_the_maps_share_of_the_logit(name, pooling):
    model = drawn(name, pooling=pooling)
    batch = {"image": images(3, 70, 98), "label": np.array([0, 3, 1], np.int32)}
    outputs = run(model, batch["image"])
    maps = models.last_map(outputs)
    weights = np.asarray(model.fc.kernel[...])[-model.channels :]
    found = cam.class_activation_map(maps, weights, batch["label"])
    others = outputs["pooled"][:, : -model.channels] @ model.fc.kernel[...][: -model.channels]
    rows = np.arange(3)
    wanted = outputs["logits"][rows, batch["label"]] - others[rows, batch["label"]]
    wanted -= model.fc.bias[...][batch["label"]]
    np.testing.assert_allclose(found.mean(axis=(1, 2)), wanted, rtol=1e-3, atol=1e-4)
    made = run(model, batch, objects.activation_maps)["true"]
    np.testing.assert_allclose(made, found, rtol=1e-3, atol=1e-4)


def test_a_transformers_maps_are_its_patches_whatever_the_stride():
    for stride in (1, 2):
        outputs = run(drawn(FAMILIES["transformer"], last_stride=stride), images(2, 56, 84))
        for name in ("stem", "stage1", "stage2", "stage3", "stage4"):
            assert outputs[name].shape == (2, 4, 6, 24)
        assert outputs["pooled"].shape == (2, 48)


def test_tokens_without_a_place_take_part():
    """Registers change what patches say; the class token stands first in the pooled feature."""
    model = drawn(FAMILIES["transformer"])
    before = run(model, images(1, 56, 56))
    model.embeddings.register_tokens[...] *= -1  # a norm would not see a constant
    after = run(model, images(1, 56, 56))
    assert np.abs(before["stage4"] - after["stage4"]).max() > 1e-3
    np.testing.assert_allclose(
        after["pooled"][:, 24:], after["stage4"].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
    assert np.abs(after["pooled"][:, :24] - after["pooled"][:, 24:]).max() > 1e-2


def test_sizes_that_patches_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"is 100 pixels, which patches of 14 .*choose 98 or 112"):
        run(drawn(FAMILIES["transformer"]), images(1, 112, 100))


@every_family
def test_half_precision_keeps_pooled_features_and_logits_wide(name):
    outputs = run(drawn(name, dtype=jnp.bfloat16), images(1, 56, 56))
    assert outputs["pooled"].dtype == outputs["logits"].dtype == jnp.float32
    wide = run(drawn(name), images(1, 56, 56))
    for map_name in ("stem", "stage4"):
        assert outputs[map_name].dtype == jnp.bfloat16
        error = np.linalg.norm(outputs[map_name].astype(jnp.float32) - wide[map_name])
        assert error < 0.1 * np.linalg.norm(wide[map_name])


# The backward pass


def gradient_of(name, **options):
    """A compiled gradient, its value and the statistics after it."""
    model = drawn(name, **options)
    fit.set_mode(model, nnx.Param)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        merged = nnx.merge(graph, params, rest, copy=True)
        outputs = merged(jnp.asarray(images(4, 56, 56)))
        return jnp.mean(jnp.square(outputs["logits"])), nnx.state(merged, nnx.BatchStat)

    program = jax.jit(jax.grad(loss, has_aux=True))
    compiled = program.lower(params).compile(compiler_options=golden.QUICK)
    return compiled.cost_analysis()["flops"], compiled(params)


@every_family
def test_rematerializing_changes_no_gradient_and_no_statistics(name):
    """Each block is computed again where its gradient is, and its statistics move once."""
    (plain, kept), (again, made) = gradient_of(name), gradient_of(name, remat=True)
    assert again > 1.1 * plain  # operations
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(made), strict=True):
        size = np.abs(one).max()
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * size + 1e-7)


@pytest.mark.slow
def test_rematerializing_saves_memory():
    def peak(**options):
        model = build(FAMILIES["transformer"], **options)
        graph, state = nnx.split(model)
        call = lambda s, x: jnp.sum(nnx.merge(graph, s)(x)["logits"])  # noqa: E731
        shape = jax.ShapeDtypeStruct((8, 448, 448, 3), jnp.float32)
        lowered = jax.jit(jax.grad(call)).lower(state, shape)
        found = lowered.compile(compiler_options=golden.QUICK).memory_analysis()
        return found.temp_size_in_bytes

    assert peak(remat=True) < 0.5 * peak()

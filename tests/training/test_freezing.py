"""What `config.freeze` names stays as it is to the last bit, costs no gradient, and is checked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax import doctor, dry_run, main, models
from fgjax.config import override
from fgjax.errors import UserError
from fgjax.methods.ccfr.global_features import MultiLevelNetwork
from fgjax.methods.ghns.part_networks import PartNetworks
from fgjax.methods.shared.classifier import cross_entropy
from fgjax.methods.shared.parts import PartNetwork
from fgjax.models.layers import BatchNorm
from fgjax.training import checkpoints, fit, freezing
from fgjax.training.dry import AbstractStep
from fgjax.training.run import Run
from tests.training.test_fit import assert_same, batches


def build(name="tests.tiny:Net", **options):
    return models.build(name, num_classes=3, rngs=nnx.Rngs(0), **options)


def frozen_names(model, freeze, trainable=nnx.Param):
    """Dotted paths of the parameters that no longer train."""
    chosen = freezing.unfrozen(model, trainable, freeze)
    every, left = (nnx.to_flat_state(nnx.state(model, f)).paths for f in (trainable, chosen))
    return {".".join(map(str, path)) for path in set(every) - set(left)}


# Which modules make a map


def sources(jaxpr):
    """For every output, the inputs that it is computed from; equations are not looked into."""
    found = {var: {number} for number, var in enumerate(jaxpr.invars)}
    of = lambda atom: set() if hasattr(atom, "val") else found.get(atom, set())  # noqa: E731
    for equation in jaxpr.eqns:
        inputs = set().union(*map(of, equation.invars))
        found |= dict.fromkeys(equation.outvars, inputs)
    return [of(var) for var in jaxpr.outvars]


@pytest.mark.parametrize(
    "name",
    ["resnet_small", "vgg16", "resnet50", "tests.tiny:Net", "inception_v3", "efficientnet_lite1",
     "efficientnet_b0", "convnext_tiny", "dinov2_vits14_reg",
     pytest.param("densenet161", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_family_says_what_computes_each_of_its_maps(name):
    """By the program: a map comes from its own modules and those of the maps before it."""
    model = nnx.eval_shape(lambda: build(name))
    model.eval()
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    flat = nnx.to_flat_state(parameters)
    image = jnp.zeros((1, 112, 112, 3))
    names: list[str] = []

    def maps(leaves):
        state = nnx.from_flat_state(zip(flat.paths, leaves))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), rest)
        outputs = nnx.merge(graph, state, zeros)(image)
        names[:] = [n for n in outputs if n not in ("pooled", "logits")]
        return [outputs[n] for n in names]

    found = sources(jax.make_jaxpr(maps)(list(flat.leaves)).jaxpr)
    declared: set = set()
    assert list(model.modules_of_maps()) == names
    for map_name, inputs in zip(names, found, strict=True):
        chosen = set(freezing.modules_of(model, map_name))
        assert chosen and not chosen & declared
        declared |= chosen
        assert {flat.paths[number][:-1] for number in inputs} == declared


# Names and patterns


@pytest.mark.parametrize(
    ("freeze", "wanted"),
    [
        ("stem", {"conv1.kernel", "bn1.scale", "bn1.bias"}),
        (" stem , bn1", {"conv1.kernel", "bn1.scale", "bn1.bias"}),
        ("stages.[01].0.conv1", {"stages.0.0.conv1.kernel", "stages.1.0.conv1.kernel"}),
        ("*downsample.0", {f"stages.{n}.0.downsample.0.kernel" for n in range(3)}),
    ],
)
def test_maps_and_globs_name_modules(freeze, wanted):
    assert frozen_names(build("resnet_small"), freeze) == wanted


def test_all_batch_norms_have_one_name():
    names = frozen_names(build("resnet_small"), "batch_norms")
    assert {"bn1.scale", "stages.0.0.bn2.bias", "stages.1.0.downsample.1.scale"} < names
    assert {name.rsplit(".", 1)[1] for name in names} == {"scale", "bias"}
    norms = [m for _, m in nnx.iter_modules(build("resnet_small")) if isinstance(m, BatchNorm)]
    assert len(names) == 2 * len(norms)


def test_a_family_without_batch_norm_has_none_to_freeze():
    vgg = nnx.eval_shape(lambda: build("vgg16"))
    assert freezing.modules_of(vgg, "batch_norms") == []
    assert freezing.unfrozen(vgg, nnx.Param, "batch_norms") is nnx.Param


def test_a_glob_that_matches_a_module_names_all_inside_it():
    model = build("resnet_small")
    assert frozen_names(model, "stages.0") == frozen_names(model, "stage1")


@pytest.mark.parametrize("freeze", ["stage9", "fc", "stem,stage9", ",", "stages.0.0.conv1.kernel"])
def test_what_matches_nothing_is_refused_by_the_names_that_there_are(freeze):
    with pytest.raises(UserError, match=r"none of the maps stem, stage1, stage2, stage3 and"):
        freezing.modules_of(build("resnet_small"), freeze)


@pytest.mark.parametrize("freeze", ["*", "stem,stage1,stage2,stage3", "stages,stem"])
def test_the_whole_backbone_is_refused(freeze):
    with pytest.raises(UserError, match="is the whole backbone"):
        freezing.modules_of(build("resnet_small"), freeze)


@pytest.mark.parametrize("freeze", ["stage7", "stage?,conv*,norms"])
def test_nothing_is_written_before_a_refusal(tiny_config, freeze, tmp_path):
    config = override(tiny_config, {"freeze": freeze, "data.data_dir": str(tmp_path / "none")})
    workdir = tmp_path / "run"
    for look in (lambda: main.run(config, workdir), lambda: dry_run.plan(config, workdir)):
        with pytest.raises(UserError, match=r"config\.freeze"):
            look()
    assert "config.freeze" in str(doctor.settings(config)[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrap", "places"),
    [
        (lambda: build(), [""]),
        (lambda: PartNetwork(build(), 2, rngs=nnx.Rngs(1)), ["backbone."]),
        (lambda: MultiLevelNetwork(build(), 2, rngs=nnx.Rngs(1)), ["backbone."]),
        (lambda: PartNetworks([build(), build()], rngs=nnx.Rngs(1)),
         ["backbones.0.", "backbones.1."]),
    ],
)  # fmt: skip
def test_backbones_are_found_inside_networks(wrap, places):
    own = {"conv1.kernel", "norms.0.scale", "norms.0.bias"}
    assert frozen_names(wrap(), "stage1") == {p + name for p in places for name in own}


def test_it_goes_with_a_methods_own_filter():
    network = PartNetwork(build(), 2, rngs=nnx.Rngs(1))
    gates = nnx.All(nnx.Param, nnx.PathContains("gates"))
    assert frozen_names(network, "stage1", gates) == set()
    without = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("gates")))
    chosen = freezing.unfrozen(network, without, "stage1")
    left = nnx.to_flat_state(nnx.state(network, chosen)).paths
    assert not any("gates" in path or path[:2] == ("backbone", "conv1") for path in left)


# Training


def images_loss(model, batch, statistics, key):
    return cross_entropy(model, {**batch, "image": 128 + 60 * batch["image"]}, statistics, key)


def train(folder, freeze, **options):
    """(state before, state after) of a small backbone."""
    model = build()
    before = checkpoints.model_state(model)
    fit.fit(
        model, images_loss, batches(), optimizer=optax.sgd(0.1, momentum=0.9), epochs=2,
        key=jax.random.key(1), folder=folder,
        trainable=freezing.unfrozen(model, nnx.Param, freeze), **options,
    )  # fmt: skip
    return before, checkpoints.model_state(model)


@pytest.mark.parametrize(
    ("freeze", "still", "options"),
    [("stage1", {0}, {}), ("stage2", {1}, {}), ("stage1,stage3", {0, 2}, {"ema": 0.9}),
     ("stage1", {0}, {"accumulate": 2})],
)  # fmt: skip
def test_frozen_maps_keep_weights_and_statistics_and_all_others_move(
    freeze, still, options, tmp_path
):
    before, after = train(tmp_path, freeze, **options)
    for number in range(3):
        pairs = [(before[f"conv{number + 1}"], after[f"conv{number + 1}"]),
                 (before["norms"][number], after["norms"][number])]  # fmt: skip
        for one, other in pairs:
            if number in still:
                assert_same(one, other)
            else:  # all of it: kernel; scale, bias, mean and variance
                assert all(not np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(before["fc"]["kernel"], after["fc"]["kernel"])


def abstract_step(freeze):
    model = build()
    batch = {"image": np.zeros((8, 32, 32, 3), np.uint8), "label": np.zeros(8, np.int32)}
    return AbstractStep(model, cross_entropy, batch, optimizer=optax.sgd(0.1), statistics={},
                        trainable=freezing.unfrozen(model, nnx.Param, freeze))  # fmt: skip


def forward_operations(model):
    model.eval()
    call = jax.jit(lambda x: model(x)["logits"])
    return call.lower(jnp.zeros((8, 32, 32, 3), jnp.uint8)).cost_analysis()["flops"]


def test_nothing_is_spent_on_frozen_gradients():
    compiled = {f: abstract_step(f).compile()[1].cost_analysis()["flops"]
                for f in ("", "stage1", "stage1,stage2", "stage2", "stage3")}  # fmt: skip
    assert compiled[""] > compiled["stage1"] > compiled["stage1,stage2"]
    # Above what trains, the way back leads through a frozen map, but not to its kernel.
    assert compiled["stage2"] < compiled[""] and compiled["stage3"] < compiled[""]
    assert compiled["stage1,stage2"] < compiled["stage2"]


def test_a_frozen_prefix_costs_its_forward_pass_alone():
    """With all but the last map frozen: a forward pass, and the last kernel's gradient."""
    model, frozen = build(), abstract_step("stage1,stage2")
    _, operations = frozen.analyse()
    last = 2 * 8 * 4 * 4 * 9 * 24 * 32  # of stage3's convolution: the map is 4 × 4
    assert operations == pytest.approx(forward_operations(model) + last, rel=0.15)


@pytest.mark.slow
def test_the_dry_run_shows_what_it_saves(tiny_config, tmp_path, relaxed):
    config = override(tiny_config, {"data.data_dir": str(tmp_path / "none"),
                                    "method.objects": "annotated", "method.parts": "annotated",
                                    "method.mixing": "cutmix"})  # fmt: skip
    whole, frozen = (
        {cost.name: cost for cost in dry_run.plan(override(config, {"freeze": f}), tmp_path).costs}
        for f in ("", "stage1,stage2")
    )
    for name in ("classifier", "margin"):
        assert frozen[name].operations < 0.8 * whole[name].operations
        assert frozen[name].memory.peak < whole[name].memory.peak
        assert frozen[name].parameters == whole[name].parameters
        assert frozen[name].trained_parameters < whole[name].trained_parameters


def test_every_stage_knows_it(tiny_config, tiny_dataset, tmp_path):
    Run(tiny_config, tiny_dataset, tmp_path).stage("classifier", tiny_config.method.classifier)
    other = dataclasses.replace(tiny_config, freeze="stage1")
    with pytest.raises(UserError, match="freeze: '' -> 'stage1'"):
        Run(other, tiny_dataset, tmp_path).stage("classifier", other.method.classifier)

"""Sizes that a backbone cannot take are refused before anything is read or written."""

import pytest
from flax import nnx

from fgjax import doctor, dry_run, main, models
from fgjax.config import override
from fgjax.errors import UserError
from fgjax.models import Backbone
from fgjax.training import network_check
from tests import tiny

SLOW = pytest.mark.slow
VIT = "dinov2_vits14"


@pytest.mark.parametrize(
    ("make", "changes", "says"),
    [
        (tiny.hdcl_config, {"data.image_size": 224}, ""),
        (tiny.hdcl_config, {"data.image_size": 225},
         r"config\.data\.image_size is 225 pixels, which patches of 14 .*choose 224 or 238"),
        (tiny.hdcl_config, {"data.image_size": 9}, r"is 9 pixels.*choose 14 or 28"),
        (tiny.ghns_config, {"data.image_size": 112, "method.part_image_size": 50},
         r"config\.method\.part_image_size is 50 .*choose 42 or 56"),
        (tiny.ccfr_config, {"data.image_size": 112, "method.crop_size": 40},
         r"config\.method\.crop_size is 40 .*choose 28 or 42"),
        (tiny.ccfr_config, {"data.image_size": 112, "method.crop_size": 56}, ""),
        (tiny.ccfr_config, {"data.image_size": 98, "method.crop_size": 56},
         r"image_size is 98, which the pyramid's 2 levels .*7 × 7.*multiple of 28, such as 84 or"),
        (tiny.hdcl_config, {"backbone": "inception_v3", "data.image_size": 64},
         r"config\.data\.image_size is 64 pixels, which leave nothing .*choose 75 or more"),
        (tiny.ghns_config, {"backbone": "vgg16", "method.part_image_size": 20},
         r"part_image_size is 20 pixels, which leave nothing .*choose 32 or more"),
        (tiny.probe_config, {"data.image_size": 14, "method.head": "attention"},
         r"single place at 14 pixels, but this method needs several for head=attention"),
    ],
)  # fmt: skip
def test_sizes(make, changes, says, data_dir):
    config = override(make(data_dir), {"backbone": VIT, **changes})
    if not says:
        network_check.check(config)
        return
    with pytest.raises(UserError, match=says) as caught:
        network_check.check(config)
    assert "\n" not in str(caught.value)


def test_other_families_take_any_size(data_dir):
    network_check.check(override(tiny.hdcl_config(data_dir), {"data.image_size": 225}))


@pytest.mark.parametrize("last_stride", [2, 1])
@pytest.mark.parametrize(
    "name", ["vgg16", "convnext_tiny", "inception_v3", pytest.param("densenet161", marks=SLOW)]
)
def test_the_smallest_size_is_the_first_that_leaves_a_map(name, last_stride, monkeypatch):
    def build():
        return models.build(name, num_classes=2, rngs=nnx.Rngs(0), last_stride=last_stride)

    def narrowest(size):
        try:
            return min(map(min, network_check.maps_of(backbone, size).values()))
        except ZeroDivisionError:  # patches of an empty map
            return 0

    backbone = nnx.eval_shape(build)
    monkeypatch.setattr(Backbone, "require_size", lambda *_: None)
    assert narrowest(backbone.smallest) == 1
    assert narrowest(backbone.smallest - 1) == 0


def test_nothing_is_written_before_a_refusal(tmp_path):
    config = override(tiny.hdcl_config(str(tmp_path / "none")), {"backbone": VIT})
    for look in (main.run, dry_run.plan):
        with pytest.raises(UserError, match="patches of 14"):
            look(config, tmp_path / "run")
    assert "patches of 14" in str(doctor.settings(config)[0])
    assert list(tmp_path.iterdir()) == []

"""Where a part network says that parts are."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.localization import grouping
from fgjax.methods.shared import parts
from fgjax.models.backbone import Options
from fgjax.training.run import Run
from tests import tiny


@pytest.mark.parametrize("centers", ["cell", "refined"])
def test_centers_are_cells_or_lie_between_them(tiny_config, tiny_dataset, tmp_path, centers):
    tiny_config.method.grouping.centers = centers
    run = Run(tiny_config, tiny_dataset, tmp_path)
    backbone = tiny.Net(Options(5), rngs=nnx.Rngs(0))
    network = parts.build_network(run, tiny_config.method.grouping, backbone)
    network.eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    outputs = network(jnp.asarray(pixels))
    scores = grouping.part_scores(outputs["stage3"], outputs["gates"])
    wanted = {"cell": grouping.part_centers, "refined": grouping.refined_centers}[centers](scores)
    np.testing.assert_allclose(outputs["centers"], wanted, atol=1e-5)
    cells = np.asarray(outputs["centers"]) * scores.shape[1] - 0.5
    assert np.allclose(cells, np.round(cells), atol=1e-4) == (centers == "cell")


def test_other_centers_are_refused(tiny_config):
    changed = override(tiny_config, {"method.grouping.centers": "middle"})
    with pytest.raises(UserError, match=r"grouping\.centers.*one of cell, refined"):
        check(changed, devices=4)

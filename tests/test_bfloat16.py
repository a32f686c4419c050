"""bfloat16 beside float32: an epoch of every loop of a demo, with the demo's own network."""

import json

import numpy as np
import pytest

from tests import finished
from tests.test_devices import losses

pytestmark = pytest.mark.slow

# A stage begins with what the one before left, so that the last ones differ most.
TOLERANCE = 0.05

_RUN = """
import json, pathlib, sys
from fgjax import config_files, main
from fgjax.config import override
from tests import fuzzing
main.setup()
config = config_files.load(f"aircraft:{sys.argv[1]},demo")
loops = [name for name, *_ in fuzzing.fields(config) if name.rsplit(".", 1)[-1] in fuzzing.OFTEN]
once = dict.fromkeys(loops, 1)
few = {"data.dataset": "synthetic_aircraft/6", "data.data_dir": sys.argv[2], "data.workers": 0,
       "data.image_size": 48}
config = override(config, {**once, **few, "dtype": sys.argv[3], **json.loads(sys.argv[5])})
main.run(config, pathlib.Path(sys.argv[4]), figures=False)
"""


@pytest.mark.parametrize(
    ("method", "besides", "tolerance"),
    [("lapm", {}, TOLERANCE), ("hdcl", {}, TOLERANCE),
     ("ghns", {"method.tau": 0.02}, TOLERANCE),  # networks of one pass are sure of nothing
     # Of regions the best are taken: where scores differ a little, others are.
     ("ccfr", {"method.explore_epochs": 0}, 2 * TOLERANCE)],
)  # fmt: skip
def test_an_epoch_of_a_demo(method, besides, tolerance, shared, data_dir, tmp_path):
    found = {}
    for dtype in ("float32", "bfloat16"):
        words = ("-c", _RUN, method, data_dir, dtype, tmp_path / dtype, json.dumps(besides))
        environment = finished.environment(data_dir, shared, XLA_FLAGS=finished.HASTY)
        finished.run(*words, environment=environment)
        found[dtype] = losses(tmp_path / dtype)
    narrow, wanted = found["bfloat16"], found["float32"]
    assert narrow.keys() == wanted.keys()
    for loop, values in wanted.items():
        np.testing.assert_allclose(narrow[loop], values, rtol=tolerance, err_msg=loop)
    assert narrow != wanted
    scores = [json.loads((tmp_path / dtype / "results.json").read_text()) for dtype in found]
    assert scores[0]["metrics"].keys() == scores[1]["metrics"].keys()

"""Stanford Cars: which of 196 models.

    python train.py --config=configs/cars.py                   LAPM, ResNet-50, 448 px
    python train.py --config=configs/cars.py:ghns              GHNS
    python train.py --config=configs/cars.py:hdcl              HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/cars.py:hdcl,recognition
    python train.py --config=configs/cars.py:ccfr              CCFR

| method | paper |
|---|---|
| lapm, ResNet-50 | 95.52 (LAPM Table 2) |
| lapm, VGG-16 | 94.27 |
| ghns, ResNet-50 | 95.68 (GHNS Table 2), VGG-16 94.54 |
| hdcl, ResNet-50, Recall@1 | 84.4 (HDCL Table 4) |
| hdcl,recognition, ResNet-50, top-1 | 88.2, softmax 87.3 (HDCL Table 7) |
| ccfr, ResNet-50 | 95.49 (CCFR Table 2), without re-ranking 95.37 |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns`, `hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "cars"
    return common.choose(
        argument,
        "cars",
        {
            "lapm": lambda: common.lapm_of(name, lambda_=0.8, alpha=1.2),
            "ghns": lambda: common.ghns_of(name, hard_negatives=200, fusion=(0.5, 0.2, 0.3)),
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

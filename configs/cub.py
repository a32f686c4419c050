"""CUB-200-2011: which of 200 birds.

    python train.py --config=configs/cub.py                   LAPM, ResNet-50, 448 px
    python train.py --config=configs/cub.py:ghns              GHNS
    python train.py --config=configs/cub.py:hdcl              HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/cub.py:hdcl,recognition
    python train.py --config=configs/cub.py:ccfr              CCFR

| method | paper |
|---|---|
| lapm, ResNet-50 | 89.23 (LAPM Table 1), with boxes 89.35 |
| lapm, VGG-16 | 88.54 |
| ghns, ResNet-50 | 89.06 (GHNS Table 1), VGG-16 88.42 |
| hdcl, ResNet-50, Recall@1 | 69.5 (HDCL Table 4) |
| hdcl,recognition, ResNet-50, top-1 | 82.1, softmax 80.3 (HDCL Table 7) |
| ccfr, ResNet-50 | 91.1 (CCFR Table 2), without re-ranking 90.7 |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns`, `hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "cub"
    return common.choose(
        argument,
        "cub",
        {
            "lapm": lambda: common.lapm_of(name, lambda_=0.75, part_size=128),
            "ghns": lambda: common.ghns_of(
                name, hard_negatives=150, fusion=(0.3, 0.3, 0.4), part_size=128
            ),
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.5),
        },
    )

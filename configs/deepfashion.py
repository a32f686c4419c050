"""DeepFashion, Category and Attribute Prediction: which of 50 categories of clothes.

    python train.py --config=configs/deepfashion.py                   LAPM, ResNet-50, 448 px
    python train.py --config=configs/deepfashion.py:ghns              GHNS
    python train.py --config=configs/deepfashion.py:ccfr              CCFR

| method | paper |
|---|---|
| lapm, ResNet-50, top-3 / top-5 | 92.03 / 96.75 (LAPM Table 4) |
| lapm, VGG-16, top-3 / top-5 | 91.25 / 96.54 |
| ghns, ResNet-50, top-3 / top-5 | 92.52 / 96.88 (GHNS Table 4) |
| ghns, VGG-16, top-3 / top-5 | 91.33 / 96.72 |
| ccfr, ResNet-50 | none: CCFR was not tried on it |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns` or `ccfr`."""
    name = "deepfashion"
    return common.choose(
        argument,
        "deepfashion",
        {
            "lapm": lambda: common.lapm_of(name, lambda_=0.75),
            "ghns": lambda: common.ghns_of(
                name, hard_negatives=150, fusion=(0.35, 0.3, 0.35), weights=(1.0, 1.0, 0.5)
            ),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

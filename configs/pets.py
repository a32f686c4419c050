"""Oxford-IIIT Pets: which of 37 breeds of cats and dogs.

    python train.py --config=configs/pets.py                   HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/pets.py:hdcl,recognition
    python train.py --config=configs/pets.py:ccfr              CCFR

| method | paper |
|---|---|
| hdcl, ResNet-50, Recall@1 | 98.8 (HDCL Table 4) |
| hdcl,recognition, ResNet-50, top-1 | 93.9, softmax 93.7 (HDCL Table 7) |
| ccfr, ResNet-50 | none: CCFR was not tried on it |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "pets"
    return common.choose(
        argument,
        "pets",
        {
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

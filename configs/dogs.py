"""Stanford Dogs: which of 120 breeds.

    python train.py --config=configs/dogs.py                   HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/dogs.py:hdcl,recognition
    python train.py --config=configs/dogs.py:ccfr              CCFR

| method | paper |
|---|---|
| hdcl, ResNet-50, Recall@1 | 88.1 (HDCL Table 4) |
| hdcl,recognition, ResNet-50, top-1 | 88.6, softmax 87.7 (HDCL Table 7) |
| ccfr, ResNet-50 | none: CCFR was not tried on it |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "dogs"
    return common.choose(
        argument,
        "dogs",
        {
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

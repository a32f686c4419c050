"""Oxford Flowers 102: which of 102 flowers.

    python train.py --config=configs/flowers.py                   HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/flowers.py:hdcl,recognition
    python train.py --config=configs/flowers.py:ccfr              CCFR

| method | paper |
|---|---|
| hdcl, ResNet-50, Recall@1 | 95.9 (HDCL Table 4) |
| hdcl,recognition, ResNet-50, top-1 | 95.5, softmax 95.2 (HDCL Table 7) |
| ccfr, ResNet-50 | none: CCFR was not tried on it |

None of it has been measured here: the dataset was not at hand.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "flowers"
    return common.choose(
        argument,
        "flowers",
        {
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

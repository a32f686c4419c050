"""Images of your own: a folder of images for each class.

    python train.py --config=configs/folder.py --config.data.path=FOLDER

trains LAPM with ResNet-50 at 448 px; `configs/folder.py:ghns` GHNS, `:hdcl` HDCL for retrieval of
unseen classes, `:hdcl,recognition` HDCL as a classifier, `:ccfr` CCFR.

FOLDER has either train/CLASS/… and test/CLASS/…, or CLASS/…; then `data.test_share` of each class
is kept for testing. JPEG, PNG, WebP and BMP are read. Methods have the values that their papers use
for FGVC-Aircraft; GHNS's fusion weights and CCFR's thresholds are
searched on held-out images; CCFR takes at least five classes, or `method.rerank.top_n` below that.
"""

from configs import common
from fgjax.config import Config


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns`, `hdcl`, `hdcl,recognition` or `ccfr`."""
    name = "folder"
    return common.choose(
        argument,
        name,
        {
            "lapm": lambda: common.lapm_of(name, lambda_=0.8),
            "ghns": lambda: common.ghns_of(name, hard_negatives=200, fusion=(0.4, 0.4, 0.2)),
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
    )

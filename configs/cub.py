"""CUB-200-2011: which of 200 birds.

    fgjax train --config=cub                   LAPM, ResNet-50, 448 px
    fgjax train --config=cub:ghns              GHNS
    fgjax train --config=cub:hdcl              HDCL, zero-shot retrieval, 280 px
    fgjax train --config=cub:hdcl,recognition
    fgjax train --config=cub:ccfr              CCFR
    fgjax train --config=cub:probe             logistic regression on frozen features
    fgjax train --config=cub:lapm,small        likewise each method: a laptop
    fgjax train --config=cub:lapm,paper        without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("cub", dataset="cub", default="lapm")
get_config = OFFER.config

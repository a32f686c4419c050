"""Oxford Flowers 102: which of 102 flowers.

    fgjax train --config=flowers               HDCL, zero-shot retrieval, 280 px
    fgjax train --config=flowers:hdcl,recognition
    fgjax train --config=flowers:ccfr          CCFR
    fgjax train --config=flowers:probe         logistic regression on frozen features
    fgjax train --config=flowers:hdcl,small    likewise each method: a laptop
    fgjax train --config=flowers:hdcl,paper    without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("flowers", dataset="flowers", default="hdcl")
get_config = OFFER.config

"""Oxford-IIIT Pets: which of 37 breeds of cats and dogs.

    fgjax train --config=pets                  HDCL, zero-shot retrieval, 280 px
    fgjax train --config=pets:hdcl,recognition
    fgjax train --config=pets:ccfr             CCFR
    fgjax train --config=pets:probe            logistic regression on frozen features
    fgjax train --config=pets:hdcl,small       likewise each method: a laptop
    fgjax train --config=pets:hdcl,paper       without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("pets", dataset="pets", default="hdcl")
get_config = OFFER.config

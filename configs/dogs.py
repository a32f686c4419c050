"""Stanford Dogs: which of 120 breeds.

    fgjax train --config=dogs                  HDCL, zero-shot retrieval, 280 px
    fgjax train --config=dogs:hdcl,recognition
    fgjax train --config=dogs:ccfr             CCFR
    fgjax train --config=dogs:probe            logistic regression on frozen features
    fgjax train --config=dogs:hdcl,small       likewise each method: a laptop
    fgjax train --config=dogs:hdcl,paper       without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("dogs", dataset="dogs", default="hdcl")
get_config = OFFER.config

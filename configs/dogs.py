"""Stanford Dogs: which of 120 breeds.

    fgjax train --config=dogs                  HDCL, zero-shot retrieval, 280 px
    fgjax train --config=dogs:hdcl,recognition
    fgjax train --config=dogs:ccfr             CCFR

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("dogs", dataset="dogs", default="hdcl")
get_config = OFFER.config

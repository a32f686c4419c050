"""Oxford Flowers 102: which of 102 flowers.

    fgjax train --config=flowers               HDCL, zero-shot retrieval, 280 px
    fgjax train --config=flowers:hdcl,recognition
    fgjax train --config=flowers:ccfr          CCFR

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("flowers", dataset="flowers", default="hdcl")
get_config = OFFER.config

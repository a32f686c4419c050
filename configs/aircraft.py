"""FGVC-Aircraft: which of 100 variants; `demo`: aircraft drawn by the program, no download.

    fgjax train --config=aircraft              LAPM, ResNet-50, 448 px
    fgjax train --config=aircraft:ghns         GHNS, five ResNet-50
    fgjax train --config=aircraft:hdcl         HDCL, zero-shot retrieval, 280 px
    fgjax train --config=aircraft:ccfr         CCFR, re-ranking by retrieval, 448 px
    fgjax train --config=aircraft:probe        logistic regression on frozen features
    fgjax train --config=aircraft:demo         LAPM on the drawn aircraft, minutes on two cores
    fgjax train --config=aircraft:ccfr,demo    likewise each method
    fgjax train --config=aircraft:hdcl,recognition
    fgjax train --config=aircraft:lapm,small   likewise each method: a laptop
    fgjax train --config=aircraft:lapm,paper   without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("aircraft", dataset="fgvc_aircraft", default="lapm", demo=True)
get_config = OFFER.config

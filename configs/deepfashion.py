"""DeepFashion, Category and Attribute Prediction: which of 50 categories of clothes.

    fgjax train --config=deepfashion           LAPM, ResNet-50, 448 px
    fgjax train --config=deepfashion:ghns      GHNS
    fgjax train --config=deepfashion:ccfr      CCFR
    fgjax train --config=deepfashion:probe     logistic regression on frozen features
    fgjax train --config=deepfashion:lapm,smalllikewise each method: a laptop
    fgjax train --config=deepfashion:lapm,paper without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("deepfashion", dataset="deepfashion", default="lapm")
get_config = OFFER.config

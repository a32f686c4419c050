"""Stanford Cars: which of 196 models.

    fgjax train --config=cars                  LAPM, ResNet-50, 448 px
    fgjax train --config=cars:ghns             GHNS
    fgjax train --config=cars:hdcl             HDCL, zero-shot retrieval, 280 px
    fgjax train --config=cars:hdcl,recognition
    fgjax train --config=cars:ccfr             CCFR
    fgjax train --config=cars:probe            logistic regression on frozen features
    fgjax train --config=cars:lapm,small       likewise each method: a laptop
    fgjax train --config=cars:lapm,paper       without held-out images, as the papers train

Values are the papers', method by method: fgjax/methods/<method>/presets.py.
"""

from fgjax.presets import Offer

OFFER = Offer("cars", dataset="cars", default="lapm")
get_config = OFFER.config

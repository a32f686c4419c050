"""Images of your own: a folder of images for each class.

    fgjax train --config=folder --config.data.path=FOLDER

trains LAPM with ResNet-50 at 448 px; `folder:ghns` GHNS, `:hdcl` HDCL for retrieval of unseen
classes, `:hdcl,recognition` HDCL as a classifier, `:ccfr` CCFR, `:probe` logistic regression on
frozen features, which takes minutes. With `small`, as in `folder:lapm,small`, each fits a laptop.

FOLDER has either train/CLASS/… and test/CLASS/…, or CLASS/…; then `data.test_share` of each class
is kept for testing. JPEG, PNG, WebP and BMP are read. Methods have the values that their papers use
for FGVC-Aircraft; GHNS's fusion weights and CCFR's thresholds are searched on held-out images; CCFR
takes at least five classes, or `method.rerank.top_n` below that.
"""

from fgjax.presets import Offer

OFFER = Offer("folder", dataset="folder", default="lapm")
get_config = OFFER.config

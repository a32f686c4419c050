"""HDCL's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, require, require_classes
from fgjax.methods.hdcl import in_batch
from fgjax.methods.hdcl.ranking import RANKINGS
from fgjax.ranges import among, within

CENTERED = ("hdcl", "dgcrl")  # class centres that are weights
PROXY = "proxy_anchor"  # the strongest simple loss with centres; not in the paper
LOSSES = (*CENTERED, "crl", "scda", *in_batch.LOSSES, PROXY)


@dataclasses.dataclass
class Config:
    """Hyper-parameters; the paper's values are section 4.1's."""

    loss: str = among(*LOSSES)  # a row of Table 1
    top_k: int = within(2, 1)  # K̂ of Eq. 8; Table 6
    alpha: float = within(100.0, 0, 1e6, above=True)  # Eq. 4
    decorrelation: float = within(0.1, 0, 1e6)  # λ of Eq. 11
    # Where the centres begin, class means less their mean: from random ones, the top K̂ of the first
    # epochs are not those that are hard.
    centers: str = among("class_means", "random", before="random")
    # Of softmax before HCL; section 5.3 recommends some for recognition.
    warmup_epochs: int = within(0, 0)
    anneal_epochs: int = within(0, 0, before=0)  # after them, in which K̂ falls from all classes
    # Dimensions of a linear layer that these losses and Proxy-Anchor search by; 0: none. Pooled
    # features are not negative, so that no cosine of two of them could be.
    width: int = within(512, 0, 65536, before=0)
    wsl: bool = False  # pool the salient places alone at test (CRL-WSL, Table 1's CRL row)
    # Whole images: the shorter side resized and a square of it, in the middle at test; False: all
    # of the image, squashed.
    square: bool = added(False, before=False)
    recognition: bool = False  # section 5.3, Table 7
    # K of the P × K batches of the in-batch losses; N-pairs takes 2.
    per_class: int = within(5, 2, 1000)
    # Of contrastive, triplet, lifted, crl; below 0: each one's own default.
    margin: float = within(-1.0, -1000, 1000)
    ranking: str = among(*RANKINGS, before="cosine")  # at test
    beside_softmax: bool = False  # train that as well, just as long, and draw both in each picture
    # stages
    start: Training = dataclasses.field(default_factory=lambda: Training(epochs=0))
    embedding: Training = dataclasses.field(default_factory=lambda: Training(epochs=100))

    @property
    def searches_unseen_classes(self) -> bool:
        """Whether training and test may have different classes."""
        return not self.recognition

    @property
    def maps_for(self) -> str:
        """What a backbone's last map is wanted for."""
        return "loss=scda" if self.loss == "scda" else "wsl" if self.wsl else ""

    def validate(self) -> None:
        """Refuse what cannot work."""
        if self.loss in in_batch.LOSSES and self.embedding.optimizer.accumulate > 1:
            per_class = 2 if self.loss == "n_pairs" else self.per_class
            require_classes("embedding", self.embedding, per_class)
        if self.recognition:
            require(self.loss == "hdcl", "loss", self.loss, "hdcl with recognition")
            require(self.ranking == "cosine", "ranking", self.ranking, "cosine with recognition")

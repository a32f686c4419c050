"""HDCL's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, one_of, require, require_classes
from fgjax.methods.hdcl import in_batch
from fgjax.methods.hdcl.ranking import RANKINGS

CENTERED = ("hdcl", "dgcrl")  # class centres that are weights
PROXY = "proxy_anchor"  # the strongest simple loss with centres; not in the paper
LOSSES = (*CENTERED, "crl", "scda", *in_batch.LOSSES, PROXY)


@dataclasses.dataclass
class Config:
    """Hyper-parameters; the paper's values are section 4.1's."""

    loss: str = "hdcl"  # a row of Table 1
    top_k: int = 2  # K̂ of Eq. 8; Table 6
    alpha: float = 100.0  # Eq. 4
    decorrelation: float = 0.1  # λ of Eq. 11
    # Where the centres begin: class_means (less their mean) | random. From random ones, the top K̂
    # of the first epochs are not those that are hard.
    centers: str = added("class_means", before="random")
    warmup_epochs: int = 0  # of softmax before HCL; section 5.3 recommends some for recognition
    anneal_epochs: int = added(0, before=0)  # after them, in which K̂ falls from all classes
    # Dimensions of a linear layer that these losses and Proxy-Anchor search by; 0: none. Pooled
    # features are not negative, so that no cosine of two of them could be.
    width: int = added(512, before=0)
    wsl: bool = False  # pool the salient places alone at test (CRL-WSL, Table 1's CRL row)
    # Whole images: the shorter side resized and a square of it, in the middle at test; False: all
    # of the image, squashed.
    square: bool = added(False, before=False)
    recognition: bool = False  # section 5.3, Table 7
    per_class: int = 5  # K of the P × K batches of the in-batch losses; N-pairs takes 2
    margin: float = -1.0  # of contrastive, triplet, lifted, crl; below 0: each one's own default
    ranking: str = added("cosine", before="cosine")  # at test; | query_expansion | k_reciprocal
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
        one_of("loss", self.loss, *LOSSES)
        one_of("centers", self.centers, "class_means", "random")
        one_of("ranking", self.ranking, *RANKINGS)
        require(self.top_k >= 1, "top_k", self.top_k, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "positive")
        require(self.decorrelation >= 0, "decorrelation", self.decorrelation, "0 or more")
        for name in ("warmup_epochs", "anneal_epochs", "width"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(self.per_class >= 2, "per_class", self.per_class, "at least 2: pairs need two")
        if self.loss in in_batch.LOSSES and self.embedding.optimizer.accumulate > 1:
            per_class = 2 if self.loss == "n_pairs" else self.per_class
            require_classes("embedding", self.embedding, per_class)
        if self.recognition:
            require(self.loss == "hdcl", "loss", self.loss, "hdcl with recognition")
            require(self.ranking == "cosine", "ranking", self.ranking, "cosine with recognition")

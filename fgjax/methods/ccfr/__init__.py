"""CCFR: Coarse Classification and Fine Re-ranking. `method` reads like the paper."""

from fgjax.methods.ccfr.config import Config
from fgjax.methods.ccfr.global_features import GlobalLoss, MultiLevelNetwork
from fgjax.methods.ccfr.method import check, load_embedder, load_memory, load_predictor, run
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions
from fgjax.methods.ccfr.regions import RegionLoss

__all__ = [
    "Config", "GlobalLoss", "MultiLevelNetwork", "RegionLoss", "RegionNetwork", "Regions",
    "check", "load_embedder", "load_memory", "load_predictor", "run",
]  # fmt: skip

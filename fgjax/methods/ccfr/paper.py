"""CCFR's equations, figures and tables, each beside what it is here."""

from fgjax import losses
from fgjax.data.datasets import load_dataset
from fgjax.evaluation.rerank import class_similarities, rerank, rescore
from fgjax.localization import regions as geometry
from fgjax.methods.ccfr import figures, global_features, hierarchy, regions, reranking
from fgjax.methods.ccfr.pyramid import Pyramid
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions
from fgjax.methods.shared.paper import Equation, Paper, Place

PAPER = Paper(
    title="Re-rank Coarse Classification with Local Region Enhanced Features for Fine-Grained "
    "Image Recognition",
    authors="Yang, Liu, Yang, Wang",
    equations=(
        Equation("1", r"\ell_1 = -\sum_{i=1}^{C} y_i \log p_i", "cross-entropy of the classes",
                 (losses.multi_level_loss,)),
        Equation("2", r"\ell_2 = -\sum_{j=1}^{C_f} y_j \log p_j",
                 "cross-entropy of the super-classes", (losses.multi_level_loss,)),
        Equation("3", r"\ell_h = \max(0, p_{children} - p_{parent})",
                 "a super-class is at least as likely as its classes are on average",
                 (losses.multi_level_loss,)),
        Equation("4", r"\ell_{multi} = \ell_1 + \lambda \ell_2 + \ell_h", "all three",
                 (losses.multi_level_loss, global_features.GlobalLoss)),
        Equation("5", r"\ell(x_A, x_P, x_N) = f(sim(x_A, x_P) - sim(x_A, x_N) - a)",
                 "triplets of cosine similarities",
                 (losses.batch_hard_cosine_triplet_loss, losses.cosine_triplet_loss)),
        Equation("6", r"f(y) = \max(0, -y)", "the hinge", (losses.cosine_triplet_loss,)),
        Equation("7", r"\ell = -\sum_{i=1}^{C} y_i \log p_i + \mu \, \ell(x_A^i, x_P^i, x_N^i)",
                 "the objective of x", (regions.RegionLoss,)),
        Equation("8", r"S_q^c = \begin{cases} S_f(q, c) & S_f(q, c) \ge T_{sf} \\ "
                 r"\alpha S_f(q, c) + \beta Sc(q, c) & S_f(q, c) < T_{sf} \end{cases}",
                 "unsure images are decided by their neighbours",
                 (rerank, rescore)),
        Equation("9", r"Sc(q, c) = \sum_{k=1}^{N_c} sim(q, x_k^c) \Big/ \sum_{c=1}^{topn} "
                 r"\sum_{k=1}^{N_c} sim(q, x_k^c), \quad sim(q, x_k^c) > T_{sc}",
                 "a class's share of the near neighbours", (class_similarities,)),
    ),
    sections=(
        Place("3.1", "super-classes of classes that look alike", (hierarchy.build_hierarchy,)),
        Place("3.1", "the multi-level stage", (global_features.pretrain,)),
        Place("3.2", "the feature pyramid that scores boxes", (Pyramid,)),
        Place("3.2", "anchors, suppression, crops",
              (geometry.anchors, geometry.nms, geometry.crop_and_resize)),
        Place("3.2", "scale-separated choice of regions", (Regions,)),
        Place("3.2", "regions joined with the image: x", (RegionNetwork,)),
        Place("3.2", "the ranking loss of NTS-Net",
              (losses.ranking_loss, regions.train_navigator)),
        Place("3.2", "the stage that trains x", (regions.enhance,)),
        Place("3.3", "re-ranking, and its thresholds", (reranking.rerank_stage,)),
    ),
    figures=(
        Place("Fig. 3", "the hierarchy", (figures.hierarchy,)),
        Place("Fig. 4, 7", "regions beside NTS-Net's", (figures.regions,)),
        Place("Fig. 5", "what re-ranking rectified and broke", (figures.reranking,)),
        Place("Fig. 6 (a), (c), (d)", "T_sf and T_sc", ("figure6",)),
        Place("Fig. 6 (b)", "classes that are re-ranked", ("figure6b",)),
        Place("beside it", "how often a region covers the part that decides",
              (figures.coverage,)),
    ),
    tables=(
        Place("Table 1", "datasets", (load_dataset,)),
        Place("Table 2", "beside other methods", ("table2",)),
        Place("Table 3", "component by component", ("table3",)),
        Place("Table 4", "retrieval, classification, both", ("table4",)),
    ),
)  # fmt: skip

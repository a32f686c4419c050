"""GHNS's equations, figures and tables, each beside what it is here."""

from fgjax import losses
from fgjax.evaluation import fusion
from fgjax.methods.ghns import (
    figures,
    filtering,
    fused,
    hard_negatives,
    image_classifier,
    part_networks,
    part_sets,
    parts_classifier,
)
from fgjax.methods.shared.paper import Equation, Paper, Place

PAPER = Paper(
    title="The feature generator of hard negative samples for fine-grained image recognition",
    authors="Kim, Hong, Byun",
    equations=(
        Equation("1", r"\|f(r) - f(p)\|_2^2 + m \le \|f(r) - f(n)\|_2^2",
                 "what a triplet asks for", (losses.triplet_loss,)),
        Equation("2", r"L_{triplet}^{part} = \sum_i \tfrac12 \max\{0, \|f(r_i) - f(p_i)\|_2^2 - "
                 r"\|f(r_i) - f(n_i)\|_2^2 + m\}",
                 "triplets of one part, over all of a batch",
                 (losses.batch_all_triplet_loss, losses.triplet_loss)),
        Equation("3", r"L_{triplet} = L_{triplet}^{part_1} + L_{triplet}^{part_2} + "
                 r"L_{triplet}^{part_3}", "over the parts", (part_networks.PartLoss,)),
        Equation("4", r"L_{cls} = L_{cls}^{part_1} + L_{cls}^{part_2} + L_{cls}^{part_3}",
                 "cross-entropy of the parts", (part_networks.PartLoss,)),
        Equation("5", r"Set^{Shf} = \{C_{part_1}^i, C_{part_2}^j, C_{part_3}^k\}, \quad "
                 r"Shf = 0 \Leftrightarrow i = j = k",
                 "shuffled and unshuffled sets of parts",
                 (part_sets.PartSets, part_sets.replacement_masks)),
        Equation("6", r"L_{adv} = -\sum d \log D(Set^{Shf=0}) + (1 - d) \log D(Set^{Shf=1})",
                 "tells the one from the other",
                 (losses.shuffle_loss, part_networks.PartNetworks)),
        Equation("7", r"L_{stage1} = \alpha L_{cls} + \beta L_{triplet} + \gamma L_{adv}",
                 "the objective of stage 1", (part_networks.PartLoss,)),
        Equation("8", r"\|f(r) - f(p)\|_2^2 + m_1 \le \|f(r) - f(n^+)\|_2^2 + m_2 \le "
                 r"\|f(r) - f(n)\|_2^2",
                 "positive before hard negative before negative", (losses.quadruplet_loss,)),
        Equation("9", r"\begin{aligned} L_{quad} = \sum_i & \tfrac12 \max\{0, "
                 r"\|f(r_i) - f(p_i)\|_2^2 - \|f(r_i) - f(n_i^+)\|_2^2 + m_1 - m_2\} \\ & "
                 r"+ \tfrac12 \max\{0, \|f(r_i) - f(n_i^+)\|_2^2 - \|f(r_i) - f(n_i)\|_2^2 + "
                 r"m_2\} \end{aligned}",
                 "as two triplets", (losses.quadruplet_loss,)),
        Equation("10", r"L_{parts} = \lambda L_{cls} + (1 - \lambda) L_{quad}",
                 "the parts classifier's objective",
                 (parts_classifier.PartsLoss, parts_classifier.Quadruplets)),
        Equation("11", r"score = a \cdot original + b \cdot object + c \cdot parts",
                 "the fused prediction", (fusion.fuse, fused.fuse_scores)),
    ),
    sections=(
        Place("3.1", "stage 1: a network for each part", (part_networks.train_part_networks,)),
        Place("3.2", "stage 2: the parts shuffle module", (hard_negatives.draw_candidates,)),
        Place("3.2", "stage 2: FilterNet", (filtering.train_filter,)),
        Place("3.2", "stage 2: what is kept", (filtering.make_hard_negatives,)),
        Place("3.3", "stage 3: the parts classifier", (parts_classifier.train_parts_classifier,)),
        Place("3.3", "stage 3: object and original classifier",
              (image_classifier.train_image_classifier, image_classifier.ImageLoss)),
    ),
    figures=(
        Place("—", "the parts' embeddings after stages 1 and 3", (figures.embedding,)),
        Place("Fig. 3", "kept and refused candidates", (figures.candidates,)),
        Place("beside it", "distances of generated samples", (figures.distances,)),
        Place("beside it", "every weight of the fusion", (figures.fusion_triangle,)),
        Place("Fig. 4", "number of hard negatives", ("figure4",)),
    ),
    tables=(
        Place("Table 1", "CUB-200-2011", ("table1",)),
        Place("Table 2", "Stanford Cars", ("table2",)),
        Place("Table 3", "FGVC-Aircraft", ("table3",)),
        Place("Table 4", "DeepFashion", ("table4",)),
        Place("Table 5", "losses of stage 1", ("table5",)),
        Place("Table 6", "each classifier, each pair, and all", ("table6",)),
    ),
)  # fmt: skip

"""LAPM's equations, figures and tables, each beside what it is here."""

from fgjax import losses
from fgjax.data import mixing
from fgjax.losses.common import euclidean
from fgjax.methods.lapm import figures
from fgjax.methods.lapm.adaptive_margin import MarginEstimator
from fgjax.methods.lapm.method import MarginLoss, PairDistances, train_margin
from fgjax.methods.shared import classifier, objects, parts
from fgjax.methods.shared.paper import Equation, Paper, Place

PAPER = Paper(
    title="Localization-Aware Adaptive Pairwise Margin Loss for Fine-Grained Image Recognition",
    authors="Kim, Kim, Byun",
    equations=(
        Equation("1", r"\tilde x = M \odot x_A + (1 - M) \odot x_B",
                 "CutMix: a box of another image is pasted", (mixing.SingleMixing, mixing.paste)),
        Equation("2", r"\tilde y = \theta y_A + (1 - \theta) y_B",
                 "the label is shared by area", (mixing.label_weights,)),
        Equation("3", r"M \in \{0, 1\}^{W \times H}, \quad 0 < \theta < 1",
                 "the box, of area 1 − θ", (mixing.random_box,)),
        Equation("4", r"\tilde x = M_1 \odot x_A + M_2 \odot x_B + M_3 \odot x_C",
                 "part-aware CutMix: parts replace the same parts", (mixing.SetMixing,)),
        Equation("5", r"\tilde y = B_A y_A + B_B y_B + B_C y_C",
                 "the label is shared by the parts' areas", (mixing.shares, MarginLoss)),
        Equation("6", r"B_A + B_B + B_C = 1", "shares of the final image",
                 (mixing.label_weights,)),
        Equation("7", r"L = \begin{cases} d & \text{positive pair} \\ \max(0, m - d) & "
                 r"\text{negative pair} \end{cases}",
                 "the conventional pairwise margin loss", (losses.pairwise_margin_loss,)),
        Equation("8", r"sim(i, j) = \|f(i) - f(j)\|_2", "distance of two features",
                 (euclidean,)),
        Equation("9", r"sim(ref, SCDI_1) + sim(ref, SCDI_2) + sim(SCDI_1, SCDI_2)",
                 "the positive relationship", (losses.positive_relationship,)),
        Equation("10", r"m_1 = \frac{1}{N} \sum_i \|f(r) - f(n_i)\|_2",
                 "the adaptive margin: mean distance of generated negatives",
                 (losses.margin_statistics, MarginEstimator, PairDistances)),
        Equation("11", r"\max(0, \|f(r) - f(n)\|_2 - m_2)", "the additional term",
                 (losses.dissimilarity,)),
        Equation("12", r"m_2 = m_1 + \alpha \sigma", "the upper margin",
                 (losses.negative_relationship, losses.margin_statistics)),
        Equation("13", r"dissim(r, n) = \max(0, m_1 - \|f(r) - f(n)\|_2) + "
                 r"\max(0, \|f(r) - f(n)\|_2 - m_2)",
                 "keeps a pair's distance in its band", (losses.dissimilarity,)),
        Equation("14", r"\begin{aligned} & dissim(ref, DCDI_1) + dissim(ref, DCDI_2) + "
                 r"dissim(DCDI_1, DCDI_2) \\ & + \max(0, m_1 - \|f(ref) - f(DCDI_C)\|_2) "
                 r"\end{aligned}",
                 "the negative relationship", (losses.negative_relationship,)),
        Equation("15", r"L_{pair} = \begin{cases} \text{Eq. 9} & \text{positive set} \\ "
                 r"\text{Eq. 14} & \text{negative set} \end{cases}",
                 "the pair loss of a set", (losses.lapm_loss,)),
        Equation("16", r"L_{pair} = S \cdot \text{Eq. 9} + (1 - S) \cdot \text{Eq. 14}",
                 "the same with an indicator", (losses.lapm_loss,)),
        Equation("17", r"L = \lambda L_{cls} + (1 - \lambda) L_{pair}", "the objective",
                 (losses.lapm_loss, MarginLoss)),
    ),
    sections=(
        Place("III.A", "where the object is (CAM)", (objects.locate_objects,)),
        Place("III.A", "three parts by channel grouping (MA-CNN)", (parts.locate_parts,)),
        Place("III.A", "part-aware CutMix", (mixing.SetMixing,)),
        Place("III.B", "training with the adaptive margin", (train_margin,)),
        Place("IV.B", "a classifier to start from", (classifier.train_classifier,)),
    ),
    figures=(
        Place("Fig. 2, 4", "mixtures beside CutMix", (figures.mixing_sheet,)),
        Place("Fig. 5", "distances in and out of their bands, and over epochs",
              (figures.bands, figures.margins)),
        Place("—", "test images' embeddings before and after", (figures.embedding,)),
    ),
    tables=(
        Place("Table 1", "CUB-200-2011", ("table1",)),
        Place("Table 2", "Stanford Cars", ("table2",)),
        Place("Table 3", "FGVC-Aircraft", ("table3",)),
        Place("Table 4", "DeepFashion", ("table4",)),
        Place("Table 5", "adaptive margin and additional term", ("table5",)),
        Place("Table 6", "N, the samples behind m₁", ("table6",)),
        Place("Table 7", "ratio of positive to negative sets", ("table7",)),
    ),
)  # fmt: skip

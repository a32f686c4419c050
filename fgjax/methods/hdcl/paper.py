"""HDCL's equations, figures and tables, each beside what it is here."""

import jax

from fgjax import evaluation, losses, models
from fgjax.data.datasets import Dataset
from fgjax.figures import embeddings
from fgjax.methods.hdcl import figures, in_batch, method
from fgjax.methods.hdcl.heads import CenterHead
from fgjax.methods.shared.embedding import embeddings_of
from fgjax.methods.shared.paper import Equation, Paper, Place

PAPER = Paper(
    title="Hard Decorrelated Centralized Loss for fine-grained image retrieval",
    authors="Zeng, Liu, Wang, Zhang, Chen, Li",
    equations=(
        Equation("1", r"f_i = F(I_i, \theta)", "the embedding: maximum ‖ average of the last map",
                 (models.pool, method.EmbeddingNetwork)),
        Equation("2", r"L_{triplet} = \tfrac12 \max(0, m + D(a, p) - D(a, n))",
                 "triplets, a baseline", (losses.batch_all_triplet_loss, losses.triplet_loss)),
        Equation("3", r"L_{CRL} = \sum_{l \ne k} \sum_i \max(0, m + \|f_i - c_k\|_2 - "
                 r"\|f_i - c_l\|_2)", "centralized ranking loss, a baseline",
                 (losses.centralized_ranking_loss,)),
        Equation("4", r"x_i = \alpha f_i / \|f_i\|_2", "the norm-scale layer", (CenterHead,)),
        Equation("5", r"o_i = W^T x_i \in \mathbb{R}^K", "logits: nearness to class centres",
                 (CenterHead,)),
        Equation("6", r"L_{DGCRL} = -\log \frac{e^{o_i(y_i)}}{\sum_j e^{o_i(j)}} + "
                 r"\frac{\lambda}{\|\Omega\|} \sum_{l \ne j} |w_l w_j^T|",
                 "softmax over all classes, decorrelated",
                 (losses.hdcl_loss, losses.decorrelation)),
        Equation("7", r"Sorted(o_i) = \{o_i(t_1), \dots, o_i(t_K)\}",
                 "the classes, the strongest first", (losses.hard_softmax_loss,)),
        Equation("8", r"L_{HCL} = -\log \frac{e^{o_i(y_i)}}{\sum_{k=1}^{\hat K} e^{o_i(t_k)}}",
                 "softmax against the K̂ strongest alone", (losses.hard_softmax_loss,)),
        Equation("9", r"p_j = \frac{e^{o_i(j)}}{\sum_{k=1}^{\hat K} e^{o_i(t_k)}}",
                 "the probability in its gradient", (losses.hard_softmax_loss,)),
        Equation("10", r"\frac{\partial L}{\partial o_i(j)} = \begin{cases} -1 & j = y_i \notin t "
                 r"\\ -(1 - p_j) & j = y_i \in t \\ p_j & j \ne y_i, j \in t \\ 0 & "
                 r"\text{otherwise} \end{cases}",
                 "the gradient, by automatic differentiation (a test)",
                 (losses.hard_softmax_loss, jax.grad)),
        Equation("11", r"L_{HDCL} = L_{HCL} + \frac{\lambda}{\|\Omega\|} \sum_{l \ne j} "
                 r"|w_l w_j^T|", "the objective; the printed minus is a slip",
                 (losses.hdcl_loss, method.EmbeddingLoss)),
    ),
    sections=(
        Place("3.1", "the embedding network", (method.EmbeddingNetwork,)),
        Place("4.1", "classes that nothing was trained on", (Dataset.zero_shot,)),
        Place("4.1", "Recall@K, Precision@K, mAP@K", (evaluation.retrieval_metrics,)),
        Place("4.2", "the baselines of Table 1", (in_batch.loss_of,)),
        Place("4.2", "embeddings for search; SCDA", (embeddings_of,)),
    ),
    figures=(
        Place("Fig. 5, 6", "t-SNE of unseen classes", (embeddings.tsne,)),
        Place("Fig. 7", "queries and what they find", (figures.gallery,)),
        Place("beside it", "how the class centres lie to each other", (figures.centers,)),
        Place("beside it", "Recall@K before and after", (figures.recall,)),
    ),
    tables=(
        Place("Table 1", "losses", ("table1",)),
        Place("Table 2", "classes that train, classes that are searched", (Dataset.zero_shot,)),
        Place("Table 3", "VGG-19", ("table3",)),
        Place("Table 4", "ResNet-50", ("table4",)),
        Place("Table 5", "ResNet-101", ("table5",)),
        Place("Table 6", "K̂", ("table6", "table6_vgg19", "table6_resnet101")),
        Place("Eq. 11", "with and without decorrelation", ("decorrelation",)),
        Place("Table 7", "recognition",
              ("table7", "table7_vgg19", "table7_densenet161", "table7_inception_v3")),
    ),
)  # fmt: skip

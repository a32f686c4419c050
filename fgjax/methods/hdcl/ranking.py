"""How neighbours are ranked: by the cosine, or again by what the first neighbours say.

Not in the paper. Nothing is trained for it, so that every ranking can stand beside every loss.
"""

import numpy as np

from fgjax.evaluation import expand_queries, k_reciprocal, nearest, ranked_metrics
from fgjax.training.stage import Stage

RANKINGS = ("cosine", "query_expansion", "k_reciprocal")


def ranked_again(stage: Stage, ranking: str) -> dict[str, float]:
    """The measures of test images that search each other, once they are ranked again.

    `query_expansion`: α query expansion with 5 neighbours and α = 3. `k_reciprocal`: k₁ = 20,
    k₂ = 6, λ = 0.3; k₁ is smaller where there are not so many images. Both are their papers'
    values: nothing is tuned here.
    """
    arrays = stage.load_arrays("after")
    embeddings, labels = arrays["embeddings"], arrays["labels"]
    own, others = np.arange(len(labels)), len(labels) - 1
    # As many as the measures look at: the largest K, or all of the largest class.
    count = min(max(32, int(np.bincount(labels).max())), others)
    if ranking == "query_expansion":
        queries = expand_queries(embeddings, embeddings, own=own)
        _, rows = nearest(queries, embeddings, count=count, own=own)
    else:
        k1 = min(20, others)
        _, rows = k_reciprocal(embeddings, k1=k1, k2=min(6, k1), count=count)
    missing = 32 - count  # fewer than 32 others: the lists end, as the plain search's do
    rows = np.pad(rows, [(0, 0), (0, max(missing, 0))], constant_values=-1)
    return ranked_metrics(rows, labels)

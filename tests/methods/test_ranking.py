"""HDCL's neighbours ranked again: from the same network, by what they find."""

import json

import numpy as np
import pytest

from fgjax import main
from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.evaluation import k_reciprocal
from tests import tiny


@pytest.mark.parametrize("ranking", ["query_expansion", "k_reciprocal"])
def test_neighbours_ranked_again_use_the_same_network(finished_hdcl, ranking, tmp_path):
    """Nothing trains; the measures are those of the new lists, told beside the protocol."""
    before = json.loads((finished_hdcl / "results.json").read_text())
    config = main.open_run(finished_hdcl).config
    config.method.ranking, config.reuse = ranking, str(finished_hdcl)
    config.method.beside_softmax = False
    results = main.run(config, tmp_path / "again", figures=False)
    assert not (tmp_path / "again" / "embedding").exists()
    arrays = dict(np.load(finished_hdcl / "embedding" / "after.npz"))
    unit, labels = arrays["embeddings"].astype(float), arrays["labels"]
    own = np.arange(len(labels))
    if ranking == "query_expansion":
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        near = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        weights = np.maximum(np.take_along_axis(scores, near, axis=1), 0) ** 3
        scores = (unit + np.einsum("nk,nkd->nd", weights, unit[near])) @ unit.T
        np.fill_diagonal(scores, -np.inf)
        first = np.argmax(scores, axis=1)
    else:
        first = k_reciprocal(unit, k1=20, k2=6, weight=0.3, count=32)[1][:, 0]
    recall = float(np.mean(labels[first] == labels[own]))
    assert results["metrics"]["recall@1"] == pytest.approx(recall, abs=1.01 / len(labels))
    assert results["metrics"]["map@r"] != before["metrics"]["map@r"]
    assert results["protocol"]["similarity"] == ranking


def test_an_unknown_ranking_is_refused(data_dir):
    for make in (tiny.hdcl_config, tiny.recognition_config):
        with pytest.raises(UserError, match="ranking"):
            check(override(make(data_dir), {"method.ranking": "euclid"}), devices=1)
    config = override(tiny.recognition_config(data_dir), {"method.ranking": "k_reciprocal"})
    with pytest.raises(UserError, match="cosine with recognition"):
        check(config, devices=1)

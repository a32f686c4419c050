"""Tables from results: per-row metrics, further columns, spreads."""

import numpy as np
import pytest

from fgjax import study
from fgjax.config import Row, Study

STUDY = Study(
    "Fusion", "Paper Table 1",
    (Row("all", {}, 90.0), Row("parts alone", {}, None, "parts_top1")),
    notes=("images",), also=("parts_top1",),
)  # fmt: skip


def results(*pairs):
    return [{"metrics": {"top1": a, "parts_top1": b, "images": 1000}} for a, b in pairs]


@pytest.fixture
def summaries():
    every = results((0.5, 0.25), (0.75, 0.5))
    return study.summarize(STUDY, {"all": every, "parts alone": every})


def test_rows_may_have_a_metric_of_their_own(summaries):
    assert summaries[0].values == (50.0, 75.0) and summaries[1].values == (25.0, 50.0)
    assert summaries[0].mean == 62.5
    assert summaries[0].deviation == pytest.approx(np.std([50, 75], ddof=1))
    assert summaries[0].also == ((25.0, 50.0),)


def test_the_table(summaries):
    table = study.markdown(STUDY, summaries, "python -m fgjax.study x", 2)
    assert "| row | top1 (%) | parts_top1 (%) | images | paper (%) |" in table
    assert "| all | 62.5 ± 17.7 (50.0, 75.0) | 37.5 ± 17.7 | 1,000 | 90.0 |" in table
    assert "| parts alone | 37.5 ± 17.7 (25.0, 50.0) | 37.5 ± 17.7 | 1,000 |  |" in table
    assert "    python -m fgjax.study x\n" in table


def test_one_seed_has_no_spread():
    one = study.summarize(STUDY, {name: results((0.5, 0.25)) for name in ("all", "parts alone")})
    assert one[0].deviation == 0.0


GRID = Study(
    "Thresholds", "Paper Figure 6",
    tuple(Row(f"{x} {y}", {"a.x": x, "b.y_value": y}) for x in (1, 2, 3) for y in (0.5, 0.25)),
    axes=("a.x", "b.y_value"),
)  # fmt: skip


def test_a_grid_is_a_table_of_both_axes_and_a_surface(tmp_path):
    found = {row.name: results((row.overrides["a.x"] / 4, 0), (0.5, 0)) for row in GRID.rows}
    summaries = study.summarize(GRID, found)
    table = study.markdown(GRID, summaries, "python -m fgjax.study y", 2)
    assert "| y value \\ x | 1 | 2 | 3 |" in table
    assert "| 0.25 | 37.5 ± 17.7 | 50.0 ± 0.0 | 62.5 ± 17.7 |" in table
    assert table.index("| 0.25") < table.index("| 0.5 |")
    study.plot_surface(GRID, summaries, tmp_path / "surface.png")
    assert (tmp_path / "surface.png").stat().st_size > 10_000

"""The papers' numbers as data: typed a second time, held to each other, and in the studies."""

import collections
import math
import sys

import pytest

from fgjax import config_files, methods, tables
from fgjax.errors import UserError
from fgjax.methods.shared import printed

PAPERS = ("lapm", "ghns", "hdcl", "ccfr")
NUMBERS = {paper: printed.read(f"fgjax.methods.{paper}") for paper in PAPERS}
ALL = [(paper, cell) for paper in PAPERS for cell in NUMBERS[paper]]
COUNTS = {
    "lapm": {"Table 1": 26, "Table 2": 25, "Table 3": 22, "Table 4": 18, "Table 5": 4, "Table 6": 5,
             "Table 7": 7},
    "ghns": {"Table 1": 25, "Table 2": 25, "Table 3": 22, "Table 4": 18, "Table 5": 4,
             "Table 6": 10, "Section 4.2": 2},
    "hdcl": {"Table 1": 124, "Table 2": 24, "Table 3": 288, "Table 4": 288, "Table 5": 288,
             "Table 6": 288, "Table 7": 48},
    "ccfr": {"Table 1": 9, "Table 2": 47, "Table 3": 6, "Table 4": 9},
}  # fmt: skip


def test_every_cell_of_every_table_is_there():
    found = {paper: dict(collections.Counter(cell.table for cell in NUMBERS[paper]))
             for paper in PAPERS}  # fmt: skip
    assert found == COUNTS and len(ALL) == 1632


# Typed from the papers, not from the files: paper, table, method, setting, backbone, dataset,
# measure, value.
AGAIN = """
lapm|Table 1|Kernel-Pooling||vgg16|cub|top1|86.2
lapm|Table 1|MGE-CNN||resnet101|cub|top1|89.4
lapm|Table 1|LAPM|annotated boxes|resnet50|cub|top1|89.35
lapm|Table 2|MaxEnt||resnet50|cars|top1|93.85
lapm|Table 3|Cross-X||SENet-50|fgvc_aircraft|top1|92.7
lapm|Table 4|FashionNet||Custom|deepfashion|top3|82.58
lapm|Table 4|LWAD||resnet50|deepfashion|top5|92.8
lapm|Table 5|LAPM|conventional, w/ adaptive margin|resnet50|cub|top1|87.89
lapm|Table 6|LAPM|N = 300|resnet50|cub|top1|89.1
lapm|Table 7|LAPM|1:2|resnet50|cub|top1|88.92
ghns|Table 1|S3N||resnet50|cub|top1|88.5
ghns|Table 1|MA-CNN||vgg19|cub|top1|86.5
ghns|Table 2|GHNS||vgg16|cars|top1|94.54
ghns|Table 3|HIHCA||vgg16|fgvc_aircraft|top1|88.3
ghns|Table 3|GHNS||resnet50|fgvc_aircraft|top1|94.40
ghns|Table 4|FAN||vgg16|deepfashion|top5|96.12
ghns|Table 5|GHNS|classification + adversarial|resnet50|cub|top1|87.98
ghns|Table 6|GHNS|object + part-level|resnet50|cub|top1|88.75
ghns|Table 6|OPAM|part-level||cub|top1|80.65
ghns|Section 4.2|GHNS|inference|vgg16||milliseconds|440
hdcl|Table 1|PDDM+Quadruplet|||cars|recall@8|89.4
hdcl|Table 1|CRL-WSL|||cub|recall@16|94.4
hdcl|Table 2||||dogs|training_images|10651
hdcl|Table 3|DGCRL||vgg19|fgvc_aircraft|precision@10|55.5
hdcl|Table 4|HDCL||resnet50|pets|map@10|98.4
hdcl|Table 4|CRL||resnet50|dogs|recall@4|95.8
hdcl|Table 5|CRL||resnet101|flowers|map@5|95.1
hdcl|Table 6|HDCL|K̂ = 5|resnet50|cars|recall@2|90.4
hdcl|Table 6|HDCL|K̂ = 10|vgg19|cub|precision@5|56.0
hdcl|Table 7|HCL||densenet161|dogs|top1|89.1
ccfr|Table 1||||fgvc_aircraft|training_images|6667
ccfr|Table 2|DF-GMM||resnet50|fgvc_aircraft|top1|93.8
ccfr|Table 2|GCL||resnet50|cars|top1|94.0
ccfr|Table 2|StackedLSTM||GoogleNet|cub|top1|90.4
ccfr|Table 2|Inception-v3||inception_v3|fgvc_aircraft|top1|90.7
ccfr|Table 2|CCFR|w/o re-ranking|resnet50|cars|top1|95.37
ccfr|Table 3|CCFR|+ local regions|resnet50|cub|top1|90.3
ccfr|Table 3|CCFR|+ fusion network|resnet50|cub|top1|90.7
ccfr|Table 4|CCFR|retrieval|resnet50|cars|top1|91.54
ccfr|Table 4|CCFR|classification|resnet50|fgvc_aircraft|top1|93.1
""".strip().splitlines()


@pytest.mark.parametrize("line", AGAIN)
def test_cells_typed_a_second_time(line):
    paper, *key, value = line.split("|")
    (cell,) = [cell for cell in NUMBERS[paper] if cell.key == tuple(key)]
    assert cell.value == value


def test_forty_cells_are_typed_again_from_every_table():
    assert len(set(AGAIN)) == 40
    seen = {tuple(line.split("|")[:2]) for line in AGAIN}
    assert seen == {(paper, table) for paper in PAPERS for table in COUNTS[paper]}


@pytest.mark.parametrize("paper", PAPERS)
def test_no_cell_stands_twice(paper):
    assert len({cell.key for cell in NUMBERS[paper]}) == len(NUMBERS[paper])


def test_cells_are_what_their_columns_say():
    shares = {"top1", "top3", "top5"} | {
        f"{name}@{k}"
        for name in ("recall", "precision", "map")
        for k in (1, 2, 4, 5, 8, 10, 16, 32)
    }
    counts = {"training_images", "test_images", "classes", "training_classes", "test_classes",
              "milliseconds"}  # fmt: skip
    for paper, cell in ALL:
        assert cell.measure in shares | counts, (paper, cell)
        assert cell.dataset in printed.DATASETS or cell.measure == "milliseconds", (paper, cell)
        if cell.measure in shares:
            assert 0 < cell.number <= 100 and cell.method, (paper, cell)
        else:
            assert cell.number == int(cell.value) > 0, (paper, cell)
        assert bool(cell.year) <= bool(cell.reference), (paper, cell)


# What the papers say in words about their tables: better, other, by so many points.
SAID = [
    ("lapm", "Table 1", "LAPM", "MGE-CNN", "resnet50", 0.73),
    ("lapm", "Table 1", "LAPM", "iSQRT-COV", "resnet50", 1.13),
    ("lapm", "Table 1", "LAPM", "GSFL-Net", "vgg16", 0.94),
    ("lapm", "Table 1", "LAPM", "iSQRT-COV", "vgg16", 1.34),
    ("lapm", "Table 2", "LAPM", "Cross-X", "resnet50", 0.92),
    ("lapm", "Table 3", "LAPM", "DCL", "resnet50", 1.43),
    ("lapm", "Table 2", "LAPM", "DCL", "vgg16", 0.17),
    ("lapm", "Table 3", "LAPM", "DFL-CNN", "vgg16", 1.08),
    ("ghns", "Table 1", "GHNS", "MGE-CNN", "resnet50", 0.56),
    ("ghns", "Table 1", "GHNS", "iSQRT-COV", "resnet50", 0.96),
    ("ghns", "Table 2", "GHNS", "Cross-X", "resnet50", 1.08),
    ("ghns", "Table 3", "GHNS", "DCL", "resnet50", 1.4),
    ("ghns", "Table 2", "GHNS", "DCL", "vgg16", 0.44),
    ("ghns", "Table 3", "GHNS", "DFL-CNN", "vgg16", 1.0),
    ("ccfr", "Table 2", "CCFR", "StackedLSTM", None, 0.7),
]


@pytest.mark.parametrize(("paper", "table", "better", "other", "backbone", "points"), SAID)
def test_differences_that_the_papers_state_in_words(paper, table, better, other, backbone, points):
    def best(method):
        return max(
            cell.number for cell in NUMBERS[paper].where(table=table, method=method)
            if backbone in (None, cell.backbone) and not cell.setting.startswith("annotated")
            and cell.dataset == NUMBERS[paper].where(table=table)[0].dataset
        )  # fmt: skip

    assert best(better) - best(other) == pytest.approx(points)


def test_what_two_papers_quote_of_a_third_is_the_same():
    quoted = collections.defaultdict(set)
    for paper, cell in ALL:
        if cell.reference and paper != "hdcl":
            quoted[cell.key[1:]].add(cell.number)
    twice = [key for key in quoted if key[0] in ("DCL", "MA-CNN", "OPAM", "FAN") and key[2]]
    assert len(twice) > 10 and all(len(quoted[key]) == 1 for key in twice)
    assert {key for key, values in quoted.items() if len(values) > 1} == set()


def rows_of(*names: str) -> dict[tuple, dict[str, float]]:
    rows = collections.defaultdict(dict)
    for cell in NUMBERS["hdcl"]:
        if cell.table in names and not cell.note:
            rows[(cell.table, *cell.key[1:5])][cell.measure] = cell.number
    return rows


def test_retrieval_is_as_its_measures_are_defined():
    """Recall grows with K, precision falls, and at K = 1 all three are one; notes say where not."""
    for key, row in rows_of("Table 1", "Table 3", "Table 4", "Table 5", "Table 6").items():
        recalls = [row[f"recall@{k}"] for k in (1, 2, 4, 8, 16, 32) if f"recall@{k}" in row]
        assert recalls == sorted(recalls), key
        precisions = [row[f"precision@{k}"] for k in (1, 5, 10) if f"precision@{k}" in row]
        assert precisions == sorted(precisions, reverse=True), key
        if "precision@1" in row:
            assert row["precision@1"] == row["recall@1"] == row.get("map@1", row["recall@1"]), key
            assert row["map@5"] >= row["precision@5"], key
            assert row.get("map@10", math.inf) >= row["precision@10"], key
    slips = [cell for cell in NUMBERS["hdcl"] if cell.note.startswith("a slip")]
    assert len(slips) == 11


def test_tables_of_a_paper_agree_where_they_share_a_row():
    of = {"vgg19": "Table 3", "resnet50": "Table 4", "resnet101": "Table 5"}
    hdcl = NUMBERS["hdcl"]
    for backbone, table in of.items():
        for dataset in ("cub", "cars"):
            where = {"backbone": backbone, "dataset": dataset}
            for method, setting in (("HDCL", "K̂ = 2"), ("DGCRL", "all classes")):
                single = hdcl.measures(table, method=method, **where)
                assert hdcl.measures("Table 6", setting=setting, **where) == single
                assert len(single) == 12
    for dataset in ("cub", "cars"):
        where = {"method": "HDCL", "backbone": "resnet50", "dataset": dataset}
        whole = hdcl.measures("Table 4", **where)
        assert hdcl.measures("Table 1", **where).items() <= whole.items()
    for paper, best in (("lapm", "89.23"), ("ghns", "89.06"), ("ccfr", "91.1")):
        own = NUMBERS[paper].where(method=paper.upper(), dataset="cub", value=best)
        assert {cell.backbone for cell in own} == {"resnet50"} and len(own) >= 3


def test_a_lookup_names_one_cell():
    hdcl = NUMBERS["hdcl"]
    cell = {"method": "HDCL", "backbone": "resnet50", "dataset": "cars"}
    assert hdcl.value("Table 4", **cell, measure="recall@1") == 84.4
    with pytest.raises(UserError, match=r"has 12 cells for Table 4, HDCL, resnet50, cars: name"):
        hdcl.value("Table 4", **cell)
    with pytest.raises(UserError, match=r"has 0 cells for Table 9, K̂ = 2, HDCL"):
        hdcl.value("Table 9", setting="K̂ = 2", method="HDCL")
    with pytest.raises(UserError, match="several rows of Table 4"):
        hdcl.measures("Table 4", method="HDCL")
    assert hdcl.measures("Table 1", method="Histogram Loss", dataset="cars") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("table,method\nTable 1,A\n", "its columns must be table, method, setting"),
        (",".join(printed.FIELDS) + "\nTable 1,A,,,,,cub,top1,eighty,\n", "line 2, is no number"),
        (",".join(printed.FIELDS) + "\nTable 1,A,,,,,cub,top1,80,,x\n", "line 2, is no number"),
    ],
)
def test_a_file_that_is_no_table_of_numbers_is_refused(text, says, tmp_path, monkeypatch):
    package = f"own_paper_{abs(hash(text))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert printed.read(package) == ()  # a paper without numbers
    printed.read.cache_clear()
    (folder / "numbers.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        printed.read(package)
    del sys.modules[package]


# The studies


def studies(config: str) -> dict:
    return methods.studies(config_files.load(config))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_row_of_a_papers_table_has_its_number(paper):
    """Except those that the paper has none for: HCL after a warm-up."""
    config = {"lapm": "cub:lapm", "ghns": "cub:ghns", "hdcl": "cub:hdcl", "ccfr": "cub:ccfr"}
    found = {name: s for name, s in studies(config[paper]).items() if name.startswith("table")}
    assert len(found) >= 3
    printed_numbers = collections.defaultdict(set)
    for cell in NUMBERS[paper]:
        printed_numbers[cell.table.replace("Table ", "table")].add(cell.number)
    for name, study in found.items():
        for row in study.rows:
            own = tables.papers_of(study, row)
            if row.name != "HCL after a warm-up":
                assert own, (name, row.name)
            assert set(own.values()) <= printed_numbers[name.partition("_")[0]], (name, row.name)


@pytest.mark.parametrize(
    ("config", "study", "row", "numbers"),
    [
        ("cub:lapm", "table4", "ResNet-50", {"top3": 92.03, "top5": 96.75}),
        ("cub:lapm", "table1", "ResNet-50, annotated boxes", {"top1": 89.35}),
        ("cub:ghns", "table4", "VGG-16", {"top3": 91.33, "top5": 96.72}),
        ("cub:ghns", "table6", "original + parts", {"original_parts_top1": 88.81}),
        ("cub:ccfr", "table4", "retrieval", {"retrieval_top1": 88.8}),
        ("cars:ccfr", "table4", "retrieval", {"retrieval_top1": 91.54}),
        ("aircraft:ccfr,demo", "table4", "retrieval", {"retrieval_top1": 93.4}),
        ("cars:ccfr", "table2", "CCFR", {"top1": 95.49}),
        ("aircraft:hdcl,demo", "table4", "SCDA", {"recall@1": 57.3, "map@10": 60.2}),
        ("cars:hdcl", "table4", "SCDA", {"recall@1": 48.3, "map@10": 51.9}),
        ("pets:hdcl", "table5", "CRL", {"recall@1": 98.2, "precision@10": 96.9}),
        ("pets:hdcl", "table1", "Triplet", {"recall@1": 36.1, "recall@32": 88.4}),
        ("cars:hdcl", "table1", "Triplet", {"recall@1": 39.1, "recall@32": 89.8}),
        ("cub:hdcl", "table6_vgg19", "K̂ = 10", {"recall@1": 63.0, "map@5": 68.3}),
        ("dogs:hdcl,recognition", "table7", "HCL", {"top1": 88.6}),
        ("dogs:hdcl,recognition", "table7_inception_v3", "HCL", {"top1": 91.0}),
    ],
)
def test_numbers_beside_a_row_are_those_of_the_configs_dataset(config, study, row, numbers):
    described = studies(config)[study]
    (found,) = [one for one in described.rows if one.name == row]
    own = tables.papers_of(described, found)
    assert {name: own.get(name) for name in numbers} == numbers

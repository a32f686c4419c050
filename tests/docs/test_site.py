"""The site: every public name has a place in it, and what is made from the code is right."""

import ast
import dataclasses
import functools
import pathlib
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

from fgjax import config_files, losses, methods
from tests.docs.pages import DOCS, PAGES, ROOT

sys.path.append(str(DOCS / "generate"))
pytest.importorskip("mkdocs", reason="needs pip install -r requirements-docs.txt")

import examples
import inserts
import maths
import papers
import plots
import reference

NO_LOSS = {"MarginStatistics", "PairMargins", "collapse_alarm", "euclidean", "margin_statistics",
           "masked_mean", "normalize", "batch_hard_cosine_triplets"}  # fmt: skip


@functools.cache
def public_names() -> frozenset[str]:
    """Full names of all public functions and classes of fgjax, and of what packages export."""
    found = set()
    for path in sorted((ROOT / "fgjax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            name = getattr(node, "name", "_")
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not name.startswith("_"):
                found.add(f"{module}.{name}")
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= {f"{module}.{exported}" for exported in ast.literal_eval(node.value)}
    return frozenset(found)


def test_the_public_names_are_the_ones_that_one_expects():
    assert {
        "fgjax.losses.lapm_loss",
        "fgjax.losses.margin.lapm_loss",
        "fgjax.training.fit.fit",
        "fgjax.methods.ccfr.Config",
        "fgjax.data.datasets.cub.make",
    } <= public_names()


def test_every_module_with_public_names_is_on_a_page_of_the_reference():
    """Whether each name is there, too, is seen in the built site (below)."""
    asked = re.findall(r"^::: (\S+)$", "\n".join(p[2] for p in reference.pages(ROOT)), flags=re.M)
    assert len(asked) == len(set(asked))
    assert {name.rpartition(".")[0] for name in public_names()} <= set(asked)


def test_every_loss_has_a_place_and_a_plot():
    text = "\n".join(page.read_text() for page in (DOCS / "losses").glob("*.md"))
    shown = set(re.findall(r"^<!-- insert: loss (\w+) -->$", text, flags=re.M))
    named = set(losses.__all__) - NO_LOSS
    assert named <= shown
    assert named == set(plots.PLOTS)
    assert all(name in text for name in losses.__all__)


@pytest.mark.parametrize("name", ["decorrelation", "hard_softmax_loss", "lifted_structure_loss"])
def test_plots_show_the_gradient_of_the_value(name):
    places, curves = plots.sample(plots.PLOTS[name])
    for values, gradients in curves.values():
        differences = np.gradient(values.astype(np.float64), places)
        close = np.isclose(differences, gradients, rtol=0.05, atol=0.05)
        assert close.mean() > 0.95  # corners apart


def test_a_plot_is_a_picture_of_both():
    drawn = plots.draw("dissimilarity")
    assert drawn.startswith("<?xml") and "value" in drawn and "gradient" in drawn
    assert "band [1, 2]" in drawn


def test_a_loss_is_shown_with_its_own_defaults():
    text = inserts.make("loss", ["quadruplet_loss"], "losses/tuples.md")
    assert "`m1=0.4`, `m2=0.2`" in text
    assert "(../assets/plots/quadruplet_loss.svg)" in text
    assert "[fgjax.losses.tuples.quadruplet_loss]" in text


@pytest.mark.parametrize("method", methods.names())
def test_every_setting_is_in_the_table(method):
    table = inserts.make("settings", [f"fgjax.methods.{method}.Config"], "papers/x.md")
    fields = dataclasses.fields(methods.get(method).Config)
    shown = re.findall(r"^\| `(\w+)` \|", table, flags=re.M)
    assert shown == [field.name for field in fields]
    assert all(line.count("|") - line.count("\\|") == 5 for line in table.splitlines())


def test_the_table_of_datasets_is_what_configs_offer():
    table = inserts.make("datasets", [], "datasets.md")
    offered = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", table, flags=re.M)
    assert {name for name, _ in offered} == set(config_files.names()) - {"folder"}
    for name, listed in offered:
        for method in re.findall(r"`(\w+)`", listed):
            assert config_files.load(f"{name}:{method}").name == f"{name}-{method}"
    counts, offered = "5,994, 5,794", "`ccfr`, `ghns`, `hdcl`, `lapm`, `probe`"
    line = f"| `cub` | CUB-200-2011, 200 classes | {counts} | {offered} |"
    assert line in table.splitlines()


def test_comments_beside_and_above_a_setting_are_shown():
    table = inserts.make("settings", ["fgjax.methods.ccfr.Config"], "papers/ccfr.md")
    assert "| `boxes` | `learned` | one of learned, random, grid, annotated |" in table
    assert "| `scales` | `0.2143, 0.4286` | above 0 and at most 1 |" in table
    assert "| `super_classes` | `0` | 0 or more | C_f; 0: a fifth of the classes." in table
    assert re.search(
        r"`explore_epochs` \| `0` \| 0 or more \| First epochs of .* ImageNet's", table
    )


@pytest.mark.parametrize("paper", papers.names())
def test_every_equation_of_a_paper_stands_beside_its_function(paper):
    text = inserts.make("equations", [paper], f"papers/{paper}.md")
    listed = methods.part(methods.get(paper), "paper").PAPER.equations
    assert text.count('class="fgjax-equation"') == len(listed)
    for equation in listed:
        assert f"**Eq. {equation.number}**" in text
        assert maths.to_mathml(equation.latex, display=True).startswith("<math")
    for name in re.findall(r"\]\[([\w.]+)\]", text):
        assert name in public_names() or name.rpartition(".")[0] in public_names(), name


def test_a_paper_has_a_page_even_if_nobody_has_written_one(tmp_path):
    assert {path.stem for path in (DOCS / "papers").glob("*.md")} <= {"index", *papers.names()}
    assert papers.names() == sorted(["ccfr", "ghns", "hdcl", "lapm"]) == papers.unwritten(tmp_path)
    assert papers.unwritten(DOCS) == []
    text = papers.page("hdcl")
    assert "Hard Decorrelated Centralized Loss" in text
    for what, *words in re.findall(r"<!-- insert: (\w+) (\S+) -->", text):
        assert inserts.make(what, words, papers.address("hdcl"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_equations_of_the_pages_are_understood(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for display, inline in re.findall(r"\$\$(.+?)\$\$|\\\((.+?)\\\)", text, flags=re.S):
        maths.to_mathml(display or inline, display=bool(display))


def test_equations_become_mathml():
    page = r'<p><span class="arithmatex">\(x_1 &lt; \hat{K}\)</span></p>'
    made = maths.render(page)
    assert made.startswith('<p><span class="arithmatex"><math')
    assert "<msub>" in made and "\\" not in made
    assert "𝒩" in maths.to_mathml(r"\mathcal{N}", display=False)
    with pytest.raises(ValueError, match="unheardof"):
        maths.to_mathml(r"\unheardof{x}", display=True)


@pytest.mark.parametrize("page", ["reliability.md", "threats.md"])
def test_promises_name_tests_that_exist(page):
    text = (DOCS / page).read_text()
    promised = set(re.findall(r"`(test_\w+)`", text))
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(promised) > 10
    assert promised <= set(re.findall(r"^def (test_\w+)", source, flags=re.M))
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).exists(), path


def test_pictures_are_small_and_used():
    text = "\n".join(page.read_text() for page in PAGES)
    for path in (DOCS / "assets").glob("*.*"):
        if path.suffix in (".webp", ".jpg", ".png"):
            assert path.stat().st_size < 150_000, path
            assert path.name in text, f"{path} is on no page"


@pytest.mark.slow
def test_the_site_builds_and_has_every_public_name(tmp_path):
    """As CI builds it; then the inventory that other projects link by, and what pages load."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, packed = (tmp_path / "site" / "objects.inv").read_bytes().split(b"zlib.\n", 1)
    assert b"fgjax" in header
    listed = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    # A constant that a package exports has no docstring and no place of its own.
    missing = {name for name in public_names() - listed if not name.rpartition(".")[2].isupper()}
    assert not missing
    loads = r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"'
    for page in (tmp_path / "site").rglob("*.html"):
        found = re.findall(loads, page.read_text())
        outside = [address for pair in found for address in pair if "//" in address]
        assert not outside, f"{page} loads {outside}"
    for page in (tmp_path / "site").rglob("*.html"):
        assert 'class="arithmatex">\\' not in page.read_text(), f"{page} has raw equations"
        assert "<!-- insert:" not in page.read_text(), page


def test_the_builder_is_part_of_the_tools_for_development():
    assert "-r requirements-docs.txt" in (ROOT / "requirements-dev.txt").read_text()
    assert pathlib.Path(ROOT / "mkdocs.yml").exists()


def test_docstrings_keep_their_columns():
    text = (
        "A title.\n\nfgjax train --config=x   trains\n\n  one    first\n  two    second\n\nProse."
    )
    expected = (
        "A title.\n\n    fgjax train --config=x   trains\n\n    one    first\n    two    second"
    )
    assert examples.columns_as_code(text) == f"{expected}\n\nProse."


def test_a_papers_tables_stand_on_its_page_as_printed():
    made = inserts.make("reported", ["hdcl"], "papers/hdcl.md")
    assert made.count("<details") == made.count("</details>") == 7
    assert "<summary>Table 4: ResNet-50</summary>" in made
    row = "| Stanford Cars | **HDCL** | 84.4 | 90.1 | 94.1 | 96.5 | 98.0 | 99.0 | 84.4 | 75.4 |"
    assert row in made and "*As printed. 61.6 (map@1): a slip: map@1 is recall@1.*" in made
    # Of one measure, datasets stand across. What the paper leaves out is empty.
    made = inserts.make("reported", ["ccfr"], "papers/ccfr.md")
    assert "| network | method | setting | CUB-200-2011 | FGVC-Aircraft | Stanford Cars |" in made
    assert "| resnet50 | MGE (2019) |  | 88.5 |  | 93.9 |" in made

"""A page for every paper: the one that is written in docs/papers, or one from its folder alone."""

import pathlib

from fgjax import methods


def names() -> list[str]:
    """The methods with a module `paper`."""
    return [name for name in methods.names() if methods.part(methods.get(name), "paper")]


def address(name: str) -> str:
    """The page of a paper."""
    return f"papers/{name}.md"


def unwritten(docs: pathlib.Path) -> list[str]:
    """Papers that nobody has written a page for."""
    return [name for name in names() if not (docs / address(name)).exists()]


def page(name: str) -> str:
    """What a paper's folder says about it by itself."""
    paper = methods.part(methods.get(name), "paper").PAPER
    return "\n\n".join([
        f"# {name.upper()}",
        f"*{paper.title}*, {paper.authors}.",
        "## Every equation and its function",
        f"<!-- insert: equations {name} -->",
        "## Sections, figures, tables",
        f"<!-- insert: places {name} -->",
        "## What the paper reports",
        f"<!-- insert: reported {name} -->",
        "## All settings",
        f"<!-- insert: settings fgjax.methods.{name}.Config -->",
    ]) + "\n"  # fmt: skip

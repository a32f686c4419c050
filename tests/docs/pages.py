"""README and the site's pages, taken apart: their code blocks and what stands around them."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?```(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    re.M | re.S,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
      language: the fence's first word.
      info: all of the fence's words.
      why: a comment just above it says why it is not run.
    """

    language: str
    info: str
    code: str
    why: str | None
    line: int


def blocks_of(path: pathlib.Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = path.read_text()
    return [
        Block(
            language=(match["info"].split() or [""])[0],
            info=match["info"],
            code=match["code"],
            why=match["why"],
            line=text[: match.start()].count("\n") + 1,
        )
        for match in _FENCE.finditer(text)
    ]


def name_of(path: pathlib.Path) -> str:
    """A page's name in a test's title."""
    return str(path.relative_to(ROOT))

"""What MkDocs calls while it builds the site; each part has a module beside this one.

A page asks for what is made from the code by a comment on a line of its own,
`<!-- insert: equations lapm -->`; what there is to ask for is in inserts.py.
"""

import pathlib
import re
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import inserts  # noqa: E402
import maths  # noqa: E402
import measured  # noqa: E402
import papers  # noqa: E402
import plots  # noqa: E402
import reference  # noqa: E402

_INSERT = re.compile(r"^<!-- insert: (\w+)(?: (.+?))? -->$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Papers and the reference into the navigation, so that new ones need no line there."""
    listed = [{title: address} for address, title, _ in reference.pages(ROOT)]
    for section in config.nav or []:
        if "Reference" in section:
            section["Reference"] = [listed[0]["Overview"], *listed[1:]]
        if "Papers" in section:
            section["Papers"] += [{name.upper(): papers.address(name)} for name in papers.names()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The reference's pages, those of papers that nobody has written, and the losses' plots."""
    for name in papers.unwritten(pathlib.Path(config.docs_dir)):
        files.append(File.generated(config, papers.address(name), content=papers.page(name)))
    for address, _, text in reference.pages(ROOT):
        files.append(File.generated(config, address, content=text))
    for name in plots.PLOTS:
        files.append(File.generated(config, plots.address(name), content=plots.draw(name)))
    for name in measured.CURVES:
        files.append(File.generated(config, measured.address(name), content=measured.draw(name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts in what a page asks for."""

    def made(match: re.Match) -> str:
        try:
            return inserts.make(match[1], (match[2] or "").split(), page.file.src_uri)
        except (KeyError, ValueError, ImportError, AttributeError) as error:
            raise PluginError(f"{page.file.src_uri}: {match[0]}: {error!r}") from error

    return _INSERT.sub(made, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations as MathML."""
    try:
        return maths.render(html)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error

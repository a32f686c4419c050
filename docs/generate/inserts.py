"""What a page can ask for: pieces of Markdown that are made from the code."""

import ast
import dataclasses
import importlib
import inspect
import io
import pathlib
import tempfile
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

import measured
import plots

from fgjax import methods
from fgjax.methods.shared import printed

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make(what: str, arguments: list[str], page: str) -> str:
    """The Markdown of one request.

    Args:
      what: name of a function in `_MAKERS`.
      arguments: its words.
      page: address of the page that asks, for links.

    Raises:
      KeyError: there is nothing of that name.
    """
    return _MAKERS[what](*arguments, up="../" * page.count("/"))


def link(thing: Any) -> str:
    """A function or class as code that links to its place in the reference, if it is fgjax's."""
    module, name = thing.__module__, thing.__qualname__
    if module.partition(".")[0] != "fgjax":
        return f"`{module.partition('.')[0]}.{name}`"
    return f"[`{module}.{name}`][{module}.{name}]"


def equations(paper: str, *, up: str) -> str:
    """A paper's equations, each beside what computes it, from `fgjax/methods/<paper>/paper.py`."""
    del up
    paper_module = importlib.import_module(f"fgjax.methods.{paper}.paper")
    blocks = []
    for equation in paper_module.PAPER.equations:
        shown = ", ".join(link(thing) for thing in equation.code)
        blocks += [
            '<div class="fgjax-equation" markdown="1">',
            f"**Eq. {equation.number}** {equation.what[0].upper()}{equation.what[1:]}.",
            f"$$\n{equation.latex.strip()}\n$$",
            shown,
            "</div>",
        ]
    return "\n\n".join(blocks)


def places(paper: str, *, up: str) -> str:
    """Where a paper's sections, figures and tables are made."""
    del up
    known = importlib.import_module(f"fgjax.methods.{paper}.paper").PAPER
    rows = ["| in the paper | what | here |", "|---|---|---|"]
    for place in (*known.sections, *known.figures, *known.tables):
        shown = ", ".join(
            f"study `{thing}`" if isinstance(thing, str) else link(thing) for thing in place.code
        )
        rows.append(f"| {place.number} | {place.what} | {shown} |")
    return "\n".join(rows)


def reported(paper: str, *, up: str) -> str:
    """All tables that a paper prints, from `fgjax/methods/<paper>/numbers.csv`."""
    del up
    known = importlib.import_module(f"fgjax.methods.{paper}.paper").PAPER
    titles = {place.number: place.what for place in reversed(known.tables)}
    blocks = []
    for table, cells in printed.read(f"fgjax.methods.{paper}").tables().items():
        datasets = {printed.DATASETS[cell.dataset] for cell in cells if cell.dataset}
        title = ": ".join(filter(None, (table, titles.get(table, "") or cells[0].setting)))
        if len(datasets) == 1 and datasets != {titles.get(table)}:
            title += f" ({datasets.pop()})"
        blocks += ['<details markdown="1">', f"<summary>{title}</summary>",
                   "\n".join(_printed_lines(cells, paper.upper()))]  # fmt: skip
        notes = [f"{cell.value} ({cell.measure}): {cell.note}" for cell in cells if cell.note]
        blocks += [f"*As printed. {'; '.join(dict.fromkeys(notes))}.*"] * bool(notes)
        blocks.append("</details>")
    return "\n\n".join(blocks)


def _printed_lines(cells: printed.Numbers, own: str) -> list[str]:
    """A table as the paper has it: measures across, or datasets where there is one measure."""
    across = "measure" if len({cell.measure for cell in cells}) > 1 else "dataset"
    if across == "measure":
        order = list(dict.fromkeys(cell.dataset for cell in cells))
        cells = printed.Numbers(sorted(cells, key=lambda cell: order.index(cell.dataset)))
    columns = dict.fromkeys(getattr(cell, across) for cell in cells)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        method = f"**{cell.method}**" if cell.method == own else cell.method
        year = f" ({cell.year})" if cell.year else ""
        dataset = printed.DATASETS.get(cell.dataset, "") if across == "measure" else ""
        row = (dataset, cell.backbone, method + year, cell.setting)
        rows.setdefault(row, {})[getattr(cell, across)] = cell.value
    heads = ("dataset", "network", "method", "setting")
    shown = [place for place in range(len(heads)) if len({row[place] for row in rows}) > 1]
    unit = cells[0].measure + " (%)" * ("top" in cells[0].measure)
    names = [unit if len(columns) == 1 else printed.DATASETS.get(name, name) for name in columns]
    lines = [[*(heads[place] for place in shown), *(name.replace("_", " ") for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for row, found in rows.items():
        lines.append([*(row[place] for place in shown), *(found.get(name, "") for name in columns)])
    return ["| " + " | ".join(line) + " |" for line in lines]


def loss(name: str, *, up: str) -> str:
    """A loss's link, defaults and plot, from the function itself."""
    function = getattr(importlib.import_module("fgjax.losses"), name)
    given, options = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is inspect.Parameter.empty:
            given.append(f"`{parameter.name}`")
        else:
            options.append(f"`{parameter.name}={parameter.default!r}`")
    lines = [
        f"[`fgjax.losses.{name}`][{function.__module__}.{function.__qualname__}] takes "
        f"{', '.join(given)}. " + (f"Defaults: {', '.join(options)}." if options else "")
    ]
    if name in plots.PLOTS:
        along = plots.PLOTS[name].along
        picture = f"{up}{plots.address(name)}"
        lines.append(f"![Value and gradient of {name} along: {along}]({picture}){{ .fgjax-plot }}")
    return "\n\n".join(lines)


def curve(name: str, *words: str, up: str) -> str:
    """A curve of published numbers; the words say what it shows."""
    if name not in measured.CURVES:
        raise KeyError(name)
    return f"![{' '.join(words)}]({up}{measured.address(name)}){{ .fgjax-plot }}"


def example(file: str, *definitions: str, up: str) -> str:
    """A file of docs/examples as code, or some of its definitions."""
    del up
    source = (ROOT / "docs" / "examples" / file).read_text()
    if definitions:
        nodes = {getattr(node, "name", ""): node for node in ast.parse(source).body}
        source = "\n\n\n".join(_source_of(source, nodes[name]) for name in definitions)
    title = file if definitions else f"docs/examples/{file}"
    return f'```python title="{title}"\n{source.strip()}\n```'


def _source_of(source: str, node: Any) -> str:
    """A definition with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def settings(name: str, *, up: str) -> str:
    """A configuration's fields with defaults, ranges and comments, as its dataclass has them."""
    del up
    module, _, kind = name.rpartition(".")
    config = getattr(importlib.import_module(module), kind)
    rows = ["| field | default | may be | |", "|---|---|---|---|"]
    fields = {field.name: field for field in dataclasses.fields(config)}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            rows += _fields(inspect.getsource(base), fields)
    return "\n".join(rows)


def _default(field: dataclasses.Field, annotation: str) -> str:
    """A default as a person would write it."""
    value = annotation if field.default is dataclasses.MISSING else field.default
    if isinstance(value, tuple):
        return ", ".join(f"{each:.4g}" for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fields(source: str, fields: dict[str, dataclasses.Field]) -> list[str]:
    """A row for each field: its name, default, range, and the comments above and beside it."""
    remarks = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    rows = []
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        name = ast.unparse(node.target)
        field = fields[name]
        value = _default(field, ast.unparse(node.annotation))
        may_be = field.metadata.get("range", "")
        above, line = [], node.lineno - 1
        lines = source.splitlines()
        while lines[line - 1].lstrip().startswith("#"):
            above.insert(0, remarks[line])
            line -= 1
        # A sentence above a field is about it; a few words are the heading of several.
        said = [" ".join(above)] if " ".join(above).endswith(".") else []
        said += [remarks[node.end_lineno]] if node.end_lineno in remarks else []
        remark = " ".join(said).replace("|", "\\|")
        value = f"`{value}`" if value else ""
        rows.append(f"| `{name}` | {value} | {may_be} | {remark} |")
    return rows


def datasets(*, up: str) -> str:
    """A row for each official dataset, from its builder."""
    del up
    rows = []
    for name, builder in _builders():
        counts = builder.official_counts
        config = name.removeprefix("fgvc_")
        what = f"{builder.title}, {counts.classes} classes"
        images = f"{counts.train:,}, {counts.test:,}"
        rows.append(f"| `{config}` | {what} | {images} | {', '.join(_methods_for(name))} |")
    return "\n".join(rows)


def _methods_for(dataset: str) -> list[str]:
    """Methods with a preset for a dataset: those that its config offers."""
    found = []
    for name in methods.names():
        presets = methods.part(methods.get(name), "presets")
        if dataset in getattr(presets, "PRESETS", {}):
            found.append(f"`{name}`")
    return found


def official_files(*, up: str) -> str:
    """Each dataset's files as its publishers name them, and where they come from."""
    del up
    rows = ["| dataset | files | where they come from |", "|---|---|---|"]
    for _, builder in _builders():
        layout = builder.layout()
        names = ", ".join(f"`{file.name}`" for file in layout.files)
        origin = layout.hint or "downloaded when it is first used"
        rows.append(f"| {builder.title} | {names} | {origin} |")
    return "\n".join(rows)


def benchmarks(*, up: str) -> str:
    """What was measured, without the file's own title."""
    del up
    return (ROOT / "benchmarks" / "RESULTS.md").read_text().partition("\n")[2]


def _builders() -> Iterator[tuple[str, Any]]:
    """All datasets with official files."""
    from fgjax.data import datasets as package

    with tempfile.TemporaryDirectory() as folder:
        for name in package.names():
            builder = package.builder_of(name, data_dir=folder)
            if builder.layout() is not None:
                yield name, builder


_MAKERS: dict[str, Callable[..., str]] = {
    maker.__name__: maker
    for maker in (equations, places, reported, loss, curve, example, settings, datasets,
                  official_files, benchmarks)
}  # fmt: skip

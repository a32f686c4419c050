"""The reference's pages: one for each package of fgjax, every public module in it."""

import ast
import pathlib
from collections.abc import Iterator

TITLES = {
    "fgjax": "Commands and configuration",
    "fgjax.losses": "Losses",
    "fgjax.evaluation": "Evaluation",
    "fgjax.localization": "Localization",
    "fgjax.models": "Models",
    "fgjax.data": "Data",
    "fgjax.data.datasets": "Datasets",
    "fgjax.training": "Training",
    "fgjax.figures": "Figures",
    "fgjax.report": "Reports",
    "fgjax.methods": "Methods",
}


def packages(root: pathlib.Path) -> dict[str, list[str]]:
    """{package: its public modules, itself first}, all below `root`/fgjax."""
    found: dict[str, list[str]] = {}
    for folder in (root / "fgjax", *sorted((root / "fgjax").rglob("*"))):
        if not (folder / "__init__.py").is_file():
            continue
        parts = folder.relative_to(root).parts
        if any(part.startswith("_") for part in parts):
            continue
        package = ".".join(parts)
        modules = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
        found[package] = [package, *(f"{package}.{module}" for module in modules)]
    order = [name for name in TITLES if name in found]
    return {name: found[name] for name in (*order, *(n for n in found if n not in order))}


def address(package: str) -> str:
    """The page of a package, such as reference/losses.md."""
    return f"reference/{package.removeprefix('fgjax.').replace('.', '/')}.md"


def title_of(package: str) -> str:
    """What the navigation calls a package."""
    if package in TITLES:
        return TITLES[package]
    name = package.rsplit(".", 1)[-1]
    if package.startswith("fgjax.methods."):
        return "Methods: shared" if name == "shared" else f"Methods: {name.upper()}"
    return name.capitalize()


def pages(root: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """(address, title, Markdown) of every page, the index first."""
    found = packages(root)
    lines = [
        "# Reference",
        "",
        "Every public name, by package. The names that a package exports stand first on its page.",
        "",
    ]
    for package, modules in found.items():
        link = address(package).removeprefix("reference/")
        lines.append(f"- [{title_of(package)}]({link}): {_summary(root, modules[0])}")
    yield "reference/index.md", "Overview", "\n".join(lines) + "\n"
    for package, modules in found.items():
        text = [f"# {title_of(package)}", ""]
        own = ", ".join(_defined(root, package))
        options = f"heading_level: 2, show_submodules: false, members: [{own}]"
        text += [f"::: {package}\n    options: {{{options}}}\n"]
        text += [f"::: {module}\n    options: {{heading_level: 2}}\n" for module in modules[1:]]
        yield address(package), title_of(package), "\n".join(text)


def _defined(root: pathlib.Path, package: str) -> list[str]:
    """Public functions and classes that a package's own file defines; others have their module."""
    tree = ast.parse((root / package.replace(".", "/") / "__init__.py").read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    named = [node.name for node in tree.body if isinstance(node, kinds)]
    return [name for name in named if not name.startswith("_")]


def _summary(root: pathlib.Path, package: str) -> str:
    source = (root / package.replace(".", "/") / "__init__.py").read_text()
    docstring = ast.get_docstring(ast.parse(source)) or f"`{package}`."
    return docstring.split("\n\n")[0].replace("\n", " ")

"""Imports point down, in no circle; nothing outside a paper's folder names it; files stay short."""

import ast
import pathlib

import pytest

from fgjax import methods

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "fgjax"
# From the ground up. A room may import those on lower floors, and itself.
FLOORS = (
    ("errors", "own_modules", "xla_flags", "huge_pages", "ranges"),
    ("compilation", "hosts"),
    ("config", "losses", "localization", "results"),
    ("models", "data"),
    ("training",),
    ("evaluation",),
    ("figures", "galleries"),
    ("report",),
    ("methods.shared",),
    ("methods.*",),
    ("methods",),
    ("presets", "testing"),
    ("config_files", "main", "model_files"),
    ("command_line", "dry_run", "opening", "prediction_tables"),
    ("tables", "train", "predict", "compare", "doctor", "export", "push"),
    ("search", "study"),
    ("serve", "index", "learn"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, ast.Module]:
    """{dotted name: its tree}."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imported(tree: ast.Module) -> set[str]:
    """The modules of fgjax that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                names.add(inside if inside in MODULES else node.module)
    return {name for name in names if name.split(".")[0] == "fgjax"}


def room_of(module: str) -> str:
    """`methods.ccfr` for anything of CCFR, else the name below fgjax."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["methods"] else 1])


def level_of(room: str) -> int:
    if room.startswith("methods."):
        return LEVEL.get(room, LEVEL["methods.*"])
    return LEVEL[room]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"fgjax"}))
def test_imports_point_down(module):
    room = room_of(module)
    for other in imported(MODULES[module]) - {"fgjax"}:
        below = room_of(other)
        assert below == room or level_of(below) < level_of(room), f"{module} imports {other}"


def test_no_circles_inside_a_room():
    edges = {name: imported(tree) & set(MODULES) - {name} for name, tree in MODULES.items()}
    # A package's face imports its modules, which may name the package: follow modules alone.
    plain = {n for n in MODULES if (PACKAGE.parent / f"{n.replace('.', '/')}.py").exists()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in sorted(edges[name] & plain):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(plain):
        walk(name, ())


@pytest.mark.parametrize("name", methods.names())
def test_nothing_outside_a_papers_folder_imports_it(name):
    own = f"fgjax.methods.{name}"
    for module, tree in MODULES.items():
        if not module.startswith(own):
            assert not {other for other in imported(tree) if other.startswith(own)}, module


def test_a_new_folder_is_a_method(tmp_path, monkeypatch):
    (tmp_path / "fifth").mkdir()
    (tmp_path / "fifth" / "method.py").write_text("")
    (tmp_path / "helpers").mkdir()
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])
    assert methods.names() == ["fifth"]


def test_no_file_is_over_400_lines():
    long = {
        path.relative_to(ROOT).as_posix(): count
        for folder in ("fgjax", "tests", "configs", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long

"""The README's Python runs, and its paths exist."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_files_that_it_names_exist():
    for name in re.findall(r"`((?:fgjax|notebooks|configs|benchmarks)/[\w./]+)`", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / name).exists(), name


def test_the_first_two_commands_install_and_run():
    commands = re.findall(r"^    (python -m venv .*)$", TEXT, flags=re.M)
    assert len(commands) == 2
    assert "requirements.txt" in commands[0] and "aircraft.py:demo" in commands[0]
    assert "requirements-dev.txt" in commands[1] and "pytest" in commands[1]


def test_ci_calls_the_readmes_test_command():
    """`.ci/run` takes the command out of the README; the pattern must find it."""
    pattern = re.search(r"grep -m1 -E '([^']+)' README\.md", (ROOT / ".ci/run").read_text())[1]
    found = [line for line in TEXT.splitlines() if re.search(pattern, line)]
    assert len(found) == 1 and "pytest" in found[0]

"""The Python of README and site runs and prints what it says; its commands exist."""

import argparse
import contextlib
import io
import re
import shlex

import jax
import pytest

from fgjax import cli, command_line, config, config_files, methods
from tests.docs.pages import EXAMPLES, PAGES, ROOT, blocks_of, name_of

LANGUAGES = {"python", "bash", "text", "", "console", "csv"}
_SHOWN = re.compile(r"`(fgjax [^`]+)`|^    (fgjax [^\n]+)$", re.M)


def commands_of(page) -> list[str]:
    """Lines of shell blocks, indented commands and commands inside a text."""
    found = [
        line
        for block in blocks_of(page)
        if block.language == "bash" and not block.why
        for line in block.code.splitlines()
        if line.strip()
    ]
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return found + [inline or indented for inline, indented in _SHOWN.findall(outside)]


COMMANDS = sorted({(name_of(page), line) for page in PAGES for line in commands_of(page)})
WITH_PYTHON = [
    pytest.param(page, marks=[pytest.mark.slow] * (page.stem == "ideas"))  # it trains
    for page in PAGES
    if "```python" in page.read_text()
]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_runs_and_prints_what_stands_below(page):
    """The blocks of a page share their names, from top to bottom."""
    names: dict = {}
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        if block.language != "python" or block.why:
            continue
        printed = io.StringIO()
        standard = jax.numpy_dtype_promotion("standard")  # as it is outside of these tests
        with standard, contextlib.redirect_stdout(printed):
            exec(compile(block.code, f"{name_of(page)}:{block.line}", "exec"), names)
        below = blocks[number + 1] if number + 1 < len(blocks) else None
        if below and below.info == 'text title="prints"':
            assert printed.getvalue() == below.code, f"{name_of(page)}:{block.line}"


class Parsed(Exception):
    """What a command understood, before it does anything."""

    def __init__(self, options: argparse.Namespace, rest: list[str]):
        self.options, self.rest = options, rest


def understood(arguments: list[str], monkeypatch) -> Parsed:
    """The options of `fgjax ARGUMENTS`, by the command's own parser."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(parser, words=None, namespace=None):
        raise Parsed(*parse(parser, words, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(Parsed) as found:
        cli.dispatch(arguments)
    return found.value


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p}: {c}" for p, c in COMMANDS])
def test_commands_exist(page, line, monkeypatch):
    words = shlex.split(line, comments=True)
    monkeypatch.chdir(EXAMPLES)
    if words[:2] == ["python", "train.py"]:
        monkeypatch.chdir(ROOT)
        words = ["fgjax", "train", *words[2:]]
    if words[0] == "python" and words[1].endswith(".py"):
        assert (EXAMPLES / words[1]).exists() or (ROOT / words[1]).exists()
        return
    assert words[0] == "fgjax", f"{page}: {line} is not checked by anything"
    assert words[1].startswith("--") or words[1] in cli.COMMANDS
    if len(words) == 2:  # the command as a whole
        return
    found = understood(words[1:], monkeypatch)
    monkeypatch.undo()
    monkeypatch.chdir(EXAMPLES)
    name = getattr(found.options, "config", None)
    assert all(word.startswith("--config.") for word in found.rest), found.rest
    if name is None:
        assert not found.rest
        return
    chosen = command_line._overridden(name, found.rest)
    study = getattr(found.options, "study", None)
    assert study in (None, "list", *methods.studies(chosen))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_overrides_in_the_text_name_fields(page):
    """`--config.method.fusion` on CCFR's page is a field of CCFR, elsewhere one of any method's."""
    named = page.stem if page.parent.name == "papers" and page.stem != "index" else None
    fields: set[str] = set()
    for method in [named] if named else methods.names():
        whole = config.Config(method=methods.get(method).Config())
        fields |= set(config.flatten(whole))
    for field in re.findall(r"--config\.([a-z][\w.]*\w)", page.read_text()):
        if field == "method.temperature":  # of docs/examples/own_method.py
            continue
        assert field in fields or any(f.startswith(f"{field}.") for f in fields), field


def test_configs_in_the_text_exist():
    """`aircraft:hdcl,demo` and the like, also without a command around them."""
    pattern = rf"`((?:{'|'.join(config_files.names())}):[\w,]+)`"
    found = {name for page in PAGES for name in re.findall(pattern, page.read_text())}
    assert found
    for name in found:
        config_files.load(name)

"""A command asks once for huge pages, where they are given on request, and stays the process."""

import contextlib
import os
import subprocess
import sys
import types

import pytest

from fgjax import cli, huge_pages
from tests import finished

REQUEST = "always [madvise] never"
_PROGRAM = """
import os, sys
from fgjax import huge_pages
huge_pages._given_on_request = lambda: True
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
huge_pages.ask()
"""


@pytest.fixture
def asked(monkeypatch):
    """What the process would be started with."""
    calls = []
    monkeypatch.setattr(os, "execv", lambda *words: calls.append(words))
    monkeypatch.setattr(huge_pages, "_given_on_request", lambda: True)
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    return calls


def begun(**environment):
    words = [sys.executable, "-c", _PROGRAM, "--two words", "x"]
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(words, env=kept | environment, capture_output=True, text=True, check=True)
    return [line.split(" ", 2) for line in done.stdout.splitlines()]


def test_the_process_starts_once_more_with_its_number_and_its_words():
    first, second = begun()
    assert first[1] == "None" and second[1] == "glibc.malloc.hugetlb=1"
    assert first[0] == second[0] and first[2] == second[2] == "['--two words', 'x']"


@pytest.mark.skipif(not huge_pages._given_on_request(), reason="Linux gives none on request here")
@pytest.mark.parametrize("words", [["train.py"], ["-m", "fgjax", "train"]])
def test_training_has_them(words, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys; print('has', os.environ.get('GLIBC_TUNABLES'), file=sys.stderr)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment["PYTHONPATH"] = str(tmp_path)
    done = finished.run(*words, "--config=nowhere", environment=environment, code=2)
    assert [line for line in done.stderr.splitlines() if line.startswith("has")] == [
        "has None", "has glibc.malloc.hugetlb=1",
    ]  # fmt: skip


def test_what_a_person_set_stays():
    assert len(begun(GLIBC_TUNABLES="glibc.malloc.hugetlb=0")) == 1
    _, second = begun(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert second[1] == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("mode", "library", "given"),
    [(REQUEST, "glibc 2.36", True), ("[always] madvise never", "glibc 2.36", False),
     ("always madvise [never]", "glibc 2.36", False), (REQUEST, "glibc 2.31", False),
     (REQUEST, None, False), (REQUEST, "glibc 3.0", True), (None, "glibc 2.36", False)],
)  # fmt: skip
def test_where_they_are_given_on_request(mode, library, given, monkeypatch, tmp_path):
    if mode:
        (tmp_path / "enabled").write_text(mode)
    monkeypatch.setattr(huge_pages, "FILE", tmp_path / "enabled")
    monkeypatch.setattr(os, "confstr", lambda name: library)
    assert huge_pages._given_on_request() == given


def test_where_the_system_has_no_such_words(monkeypatch):
    monkeypatch.delattr(os, "confstr")
    assert not huge_pages._given_on_request()


def test_a_process_that_runs_the_command_beside_others_is_left_alone(asked, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=nowhere"])
    huge_pages.ask()  # these are not the words that pytest was started with
    assert not asked
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--config=nowhere"])
    notebook = types.SimpleNamespace(get_ipython=lambda: "a shell")
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    huge_pages.ask()
    assert not asked
    notebook.get_ipython = lambda: None  # imported by something, but nobody's notebook
    huge_pages.ask()
    assert asked == [(sys.executable, [sys.executable, "train.py", "--config=nowhere"])]


def test_where_it_cannot_start_anew_the_process_goes_on(asked, monkeypatch):
    tried = []

    def refuse(*words):
        tried.append(os.environ["GLIBC_TUNABLES"])
        raise OSError("no")

    monkeypatch.setattr(os, "execv", refuse)
    monkeypatch.setattr(sys, "argv", sys.orig_argv)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    huge_pages.ask()
    assert tried == ["glibc.malloc.check=0:glibc.malloc.hugetlb=1"]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=0"
    monkeypatch.delenv("GLIBC_TUNABLES")
    huge_pages.ask()
    assert len(tried) == 2 and "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize(
    ("words", "asks"),
    [(["train", "--config=nowhere"], True), (["serve"], True), (["train", "--help"], False),
     (["configs"], False), (["nothing"], False), ([], False)],
)  # fmt: skip
def test_commands_that_compute_ask(words, asks, asked, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fgjax", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", "fgjax", *words])
    monkeypatch.setattr(cli, "dispatch", lambda words: 0)
    with contextlib.suppress(SystemExit):
        cli.main()
    assert bool(asked) == asks

"""The command `fgjax`: its words, their help, how configs are named and overridden."""

import pathlib
import subprocess
import sys

import pytest

from fgjax import cli, command_line, config_files, main
from fgjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def parsed():
    """The config that words after `fgjax train` stand for."""

    def parse(*words):
        parser = command_line.parser_of("train", "")
        command_line.add_config_options(parser)
        return command_line.parse(parser, list(words))[1]

    return parse


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_command(capsys, word):
    assert cli.dispatch([word]) == 0
    said = capsys.readouterr().out
    assert all(f"fgjax {name}" in said for name in cli.COMMANDS)


def test_no_word_is_help_and_a_failure(capsys):
    assert cli.dispatch([]) == 2
    assert "fgjax train" in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_of_its_own(capsys, name):
    with pytest.raises(SystemExit) as ended:
        cli.dispatch([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fgjax {name}") and f"\nfgjax {name}" in said


def test_an_unknown_command_lists_what_there_is():
    with pytest.raises(UserError, match="no command 'trian'; there are train, predict, search,"):
        cli.dispatch(["trian"])


def test_refusals_are_one_sentence_and_exit_code_2(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fgjax", "nothing"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: fgjax has no command 'nothing'") and error.count("\n") == 1


def test_configs_are_listed_with_their_methods_and_flags(capsys):
    cli.dispatch(["configs"])
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines[: len(config_files.names())]}
    assert sorted(listed) == config_files.names()
    three = " | ".join(f"{method}[,small][,paper]" for method in ("lapm", "ccfr", "ghns"))
    words = f"{three} | hdcl[,recognition][,small][,paper]"
    assert f"{words} | probe[,small]  [,demo]" in listed["aircraft"]
    assert (
        "hdcl[,recognition][,small][,paper] | ccfr[,small][,paper] | probe" in listed["dogs"]
        and "lapm" not in listed["dogs"]
    )
    assert "which of 200 birds" in listed["cub"]


def test_every_listed_word_makes_a_config():
    for name in config_files.names():
        offer = config_files.offer_of(name)
        for method in offer.methods:
            assert config_files.load(f"{name}:{method}").name == f"{name}-{method}"
            for flag in offer.flags(method):
                loaded = config_files.load(f"{name}:{method},{flag}")
                assert loaded.name == f"{name}-{method}-{flag}"


def test_one_config_says_what_its_words_mean(capsys):
    cli.dispatch(["configs", "cub"])
    assert "fgjax train --config=cub:hdcl,recognition" in capsys.readouterr().out


def test_a_config_by_name_and_by_path_is_the_same(parsed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parsed("--config=cub:ccfr") == parsed(f"--config={ROOT}/configs/cub.py:ccfr")


@pytest.mark.parametrize(
    "words",
    [
        ("--config=aircraft:demo", "--config.seed=7", "--noconfig.method.l2norm"),
        ("--config=aircraft:demo", "--config.seed", "7", "--config.method.l2norm=false"),
        ("--config", "aircraft:demo", "--config.method.l2norm=False", "--config.seed=7"),
    ],
)
def test_fields_are_overridden_in_every_form(parsed, words):
    config = parsed(*words)
    assert config.seed == 7 and config.method.l2norm is False
    assert config.name == "aircraft-lapm-demo"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--config=airplane",),
            r"config airplane does not exist: name one of aircraft, cars, cub",
        ),
        (("--config=configs/none.py",), r"config file configs/none\.py does not exist"),
        (("--config=aircraft:hal",), "'hal' is neither a method nor a flag"),
        (("--config=aircraft:lapm,ccfr",), "two methods, lapm and ccfr"),
        (("--config=cub:ccfr,recognition",), "recognition is a flag of hdcl, not of ccfr"),
        (("--config=cub:demo",), "'demo' is neither a method nor a flag"),
        (("--config=aircraft:demo", "--config.no_such=1"), "no field 'no_such'"),
        (("--config=aircraft:demo", "--config.seed=abc"), "seed=abc"),
        (("--config=aircraft:demo", "--nosuch=1"), "nosuch"),
        (("--config=aircraft:demo", "stray"), "'stray' is not a flag"),
        (("--config.seed=1",), "not known here"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(parsed, words, says):
    with pytest.raises(UserError, match=says):
        parsed(*words)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (", "is not a config file"),
        ("x = 1", r"needs get_config"),
        ("get_config = lambda argument: 3", r"needs get_config"),
    ],
)
def test_files_that_are_no_configs_are_refused(parsed, tmp_path, text, says):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        parsed(f"--config={path}")


def test_a_config_of_ones_own(parsed, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from fgjax import config_files\n\n\ndef get_config(argument=''):\n"
        "    config = config_files.load('aircraft:demo')\n"
        "    config.name, config.seed = 'own', int(argument or 3)\n    return config\n"
    )
    assert parsed(f"--config={path}").seed == 3
    config = parsed(f"--config={path}:5", "--config.data.image_size=64")
    assert (config.name, config.seed, config.data.image_size) == ("own", 5, 64)
    assert main.default_workdir(config) == pathlib.Path("runs/own")


def test_training_begins_without_what_is_needed_later():
    """Each of these takes a second or two to import."""
    code = (
        "import sys, fgjax.evaluation, fgjax.train; from fgjax import methods; "
        "[methods.get(name) for name in methods.names()]; "
        "later = ('scipy.stats', 'scipy.optimize', 'sklearn', 'matplotlib', 'fastapi'); "
        "print([m for m in later if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_and_refusals_load_no_jax():
    """Its imports take a second."""
    code = "import sys, fgjax.cli; print([m for m in ('jax', 'orbax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

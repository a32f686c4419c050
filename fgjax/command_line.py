"""What the commands share: options that name a config, and errors as one sentence."""

import argparse
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from fgjax import config_files
from fgjax.config import Config
from fgjax.errors import SharedError, UserError
from fgjax.training.preemption import EXIT_CODE, Preempted


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the module's own text as it stands."""
    return argparse.ArgumentParser(
        prog=f"fgjax {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--workdir`; `--config.FIELD=VALUE` is read by `parse`."""
    parser.add_argument(
        "--config",
        metavar="NAME[:METHOD[,FLAG]]",
        help="a shipped config (see `fgjax configs`) or the path of a config file",
    )
    parser.add_argument(
        "--config.FIELD",
        metavar="VALUE",
        dest="_field",
        help="override any field: --config.seed=1 --config.data.image_size=224",
    )
    parser.add_argument("--workdir", default="", help="folder of the run (runs/CONFIG-METHOD)")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """`--workdir` and `--model`, of which `source_of` wants one."""
    parser.add_argument("--workdir", type=pathlib.Path, help="a finished run")
    parser.add_argument("--model", type=pathlib.Path, help="or a file that fgjax export wrote")


def add_rate_option(parser: argparse.ArgumentParser) -> None:
    """`--false-accepts`, which `rate_of` reads."""
    parser.add_argument(
        "--false-accepts", type=float, metavar="SHARE",
        help="share of things of no class that may be taken for one: where more of them look as "
        "sure, the answer is “none of these” (0.1)",
    )  # fmt: skip


def rate_of(options: argparse.Namespace) -> float:
    """The share.

    Raises:
      UserError: it is none.
    """
    from fgjax.evaluation.unknown import FALSE_ACCEPTS

    rate = FALSE_ACCEPTS if options.false_accepts is None else options.false_accepts
    if not 0 <= rate <= 1:
        raise UserError(f"--false-accepts is {rate}, but must be in [0, 1].")
    return rate


def source_of(options: argparse.Namespace) -> pathlib.Path:
    """The run's folder or the model file.

    Raises:
      UserError: none or both are given, or the model is no file.
    """
    given: list[pathlib.Path] = [p for p in (options.workdir, options.model) if p is not None]
    if len(given) != 1:
        raise UserError("say with which model: --workdir=RUN or --model=FILE, one of them.")
    if options.model is not None and not options.model.is_file():
        raise UserError(f"there is no model file {options.model}: write one with fgjax export.")
    return given[0]


def option_of(source: pathlib.Path) -> str:
    """As it is given on a command line."""
    return f"--model={source}" if source.is_file() else f"--workdir={source}"


def beside(source: pathlib.Path, name: str) -> pathlib.Path:
    """A path in a run's folder; of a model file beside it, under its name."""
    return source.with_name(f"{source.stem}-{name}") if source.is_file() else source / name


def parse(
    parser: argparse.ArgumentParser, arguments: list[str] | None
) -> tuple[argparse.Namespace, Config | None]:
    """Options, and the config with its overrides; None where no config is named.

    Raises:
      UserError: a word is not known, or a field or its value is wrong.
    """
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    for number, word in enumerate(rest):
        separate = number and "=" not in rest[number - 1] and rest[number - 1].startswith("--")
        if not word.startswith("--") and not separate:
            raise UserError(f"{word!r} is not a flag; overrides look like --config.seed=1.")
    if options.config is None:
        if rest:
            raise UserError(f"{rest[0]!r} is not known here; see {parser.prog} --help.")
        return options, None
    return options, _overridden(options.config, rest)


def _overridden(name: str, overrides: list[str]) -> Config:
    path, argument = config_files.find(name)
    config_files.load(name)  # says in one sentence what is wrong with it
    words = ["fgjax", f"--config={path}:{argument}", *overrides]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    try:
        left = values(words)
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    except KeyError as error:  # how config_flags says that a field does not exist
        field = re.search(r"Field (\w+) not found", str(error))
        named = repr(field[1]) if field else str(error)
        raise UserError(f"the config has no field {named}; see fgjax/config.py.") from error
    if len(left) > 1:
        raise UserError(f"{left[1]!r} is not a flag; overrides look like --config.seed=1.")
    return holder.value


def run(command: Callable[[], object]) -> None:
    """Run a command; what a person can mend is one sentence and exit code 2."""
    try:
        code = command()
    except SharedError:  # its process says it
        _leave(2)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        _leave(2)
    except Preempted as request:
        print(request, file=sys.stderr)
        _leave(EXIT_CODE)
    except BrokenPipeError:  # `fgjax configs | head`
        sys.stderr.close()
        sys.exit(1)
    except Exception:
        if not _one_of_several():
            raise
        traceback.print_exc()
        _leave(1)
    sys.exit(code if isinstance(code, int) else 0)


def _one_of_several() -> bool:
    """Whether other processes work on the same run; help and refusals need no JAX to know."""
    if "jax" not in sys.modules:
        return False
    from fgjax import hosts

    return hosts.count() > 1


def _leave(code: int) -> NoReturn:
    """End, though others may be waiting."""
    if _one_of_several():
        from fgjax import hosts

        hosts.leave(code)
    sys.exit(code)

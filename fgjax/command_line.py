"""What the commands share: flags for a config, and errors as one sentence."""

import re
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import config_flags

from fgjax.config import Config
from fgjax.errors import UserError


def config_flag():
    """`--config=FILE:ARGUMENT` with `--config.FIELD=VALUE` for every field."""
    return config_flags.DEFINE_config_file(
        "config", help_string="Config file, with an argument: configs/aircraft.py:lapm,demo"
    )


def config_of(holder) -> Config | None:
    """The config that a flag of `config_flag` names.

    Raises:
      UserError: the file has no config.
    """
    if holder.value is not None and not isinstance(holder.value, Config):
        raise UserError(f"{flags.FLAGS['config'].config_filename} is not a readable config file.")
    return holder.value


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from error
    except KeyError as error:  # how config_flags says that a field does not exist
        field = re.search(r"Field (\w+) not found", str(error))
        named = repr(field[1]) if field else str(error)
        raise UserError(f"the config has no field {named}; see fgjax/config.py.") from error


def run_with_flags(main: Callable[[], int | None]) -> None:
    """Run a command that takes flags alone."""

    def checked(arguments: list[str]) -> int | None:
        if len(arguments) > 1:
            raise UserError(f"{arguments[1]!r} is not a flag; overrides look like --config.seed=1.")
        return main()

    run(lambda: app.run(checked, flags_parser=_parse))


def run(main: Callable[[], object]) -> None:
    """Run a command; what a person can mend is one sentence and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

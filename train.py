"""Train a fine-grained model: python train.py --config=configs/aircraft.py:demo."""

import pathlib
import re
import sys

from absl import app, flags
from ml_collections import config_flags

from fgjax import main
from fgjax.config import Config
from fgjax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file, with an argument: configs/aircraft.py:lapm,demo"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>-<method>.")


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from error
    except KeyError as error:  # how config_flags says that a field does not exist
        field = re.search(r"Field (\w+) not found", str(error))
        named = repr(field[1]) if field else str(error)
        raise UserError(f"the config has no field {named}; see fgjax/config.py.") from error


def _main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise UserError(f"{arguments[1]!r} is not a flag; overrides look like --config.seed=1.")
    config = _CONFIG.value
    if config is None:
        raise UserError("name a config: python train.py --config=configs/aircraft.py:demo")
    if not isinstance(config, Config):
        raise UserError(f"{flags.FLAGS['config'].config_filename} is not a readable config file.")
    workdir = pathlib.Path(_WORKDIR.value or main.default_workdir(config))
    main.setup()
    results = main.run(config, workdir)
    scores = {k: v for k, v in results["metrics"].items() if isinstance(v, float)}
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"results: {workdir / 'results.json'}  pictures: {workdir / 'figures'}")


if __name__ == "__main__":
    try:
        app.run(_main, flags_parser=_parse)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

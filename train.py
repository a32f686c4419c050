"""Train a fine-grained model: python train.py --config=configs/aircraft.py:demo."""

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from fgjax import main
from fgjax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file, with an argument: configs/aircraft.py:lapm,demo"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>-<method>.")


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; overrides look like --config.seed=1.")
    if _CONFIG.value is None:
        raise UserError("name a config: python train.py --config=configs/aircraft.py:demo")
    config = _CONFIG.value
    workdir = pathlib.Path(_WORKDIR.value or main.default_workdir(config))
    main.setup()
    results = main.run(config, workdir)
    scores = {k: v for k, v in results["metrics"].items() if isinstance(v, float)}
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"results: {workdir / 'results.json'}  pictures: {workdir / 'figures'}")


def _stop(message: object) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    try:
        app.run(_main)
    except UserError as error:
        _stop(error)
    except KeyError as error:  # how config_flags says that a field does not exist
        if "not found on" not in str(error):
            raise
        _stop(f"the config has no such field: {error.args[0]}")

"""Train a fine-grained model: python train.py --config=configs/aircraft.py:demo."""

import pathlib

from absl import flags

from fgjax import command_line, main
from fgjax.errors import UserError

_CONFIG = command_line.config_flag()
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>-<method>.")


def _main() -> None:
    config = command_line.config_of(_CONFIG)
    if config is None:
        raise UserError("name a config: python train.py --config=configs/aircraft.py:demo")
    workdir = pathlib.Path(_WORKDIR.value or main.default_workdir(config))
    main.setup()
    results = main.run(config, workdir)
    scores = {k: v for k, v in results["metrics"].items() if isinstance(v, float)}
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"results: {workdir / 'results.json'}  pictures: {workdir / 'figures'}")


if __name__ == "__main__":
    command_line.run_with_flags(_main)

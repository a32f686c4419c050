"""Train a fine-grained model and measure it; the same words again resume.

fgjax train --config=aircraft:demo                  built-in data, minutes on two cores
fgjax train --config=folder --config.data.path=DIR  photographs of your own
fgjax train --config=cub:ccfr --dry-run             what it would cost, without data

Any field can be overridden: --config.backbone=resnet18 --config.method.margin.epochs=50; those of a
method stand at the top of its folder in fgjax/methods.
"""

import pathlib

from fgjax import command_line, main
from fgjax.errors import UserError


def command(arguments: list[str] | None = None) -> None:
    """`fgjax train`."""
    parser = command_line.parser_of("train", __doc__)
    command_line.add_config_options(parser)
    options, config = command_line.parse(parser, arguments)
    if config is None:
        raise UserError(
            "name a config: fgjax train --config=aircraft:demo; `fgjax configs` lists them."
        )
    workdir = pathlib.Path(options.workdir or main.default_workdir(config))
    main.setup()
    results = main.run(config, workdir)
    scores = {k: v for k, v in results["metrics"].items() if isinstance(v, float)}
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"results: {workdir / 'results.json'}  pictures: {workdir / 'figures'}")


if __name__ == "__main__":
    command_line.run(command)

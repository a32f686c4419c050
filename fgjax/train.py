"""Train a fine-grained model and measure it; the same words again resume.

fgjax train --config=aircraft:demo                  built-in data, minutes on two cores
fgjax train --config=folder --config.data.path=DIR  photographs of your own
fgjax train --config=cub:ccfr --dry-run             what it would cost, without data

Several hosts train together where each starts the same words, by srun or mpirun or with
--coordinator, --processes and --process. They share the workdir and the data.

SIGTERM saves the step that runs and ends with exit code 75: the same words go on there.

Any field can be overridden: --config.backbone=resnet18 --config.method.margin.epochs=50; those of a
method stand at the top of its folder in fgjax/methods.
"""

import argparse
import pathlib

from fgjax import command_line, dry_run, hosts, main
from fgjax.errors import UserError
from fgjax.training import preemption


def command(arguments: list[str] | None = None) -> None:
    """`fgjax train`."""
    parser = command_line.parser_of("train", __doc__)
    command_line.add_config_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: say what each stage would cost; needs neither data nor weights",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="with --dry-run, for so many devices; simulated where there are fewer",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of several processes: where the first one listens",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process", type=int, metavar="K", help="which of them this is, from 0 on")
    options, config = command_line.parse(parser, arguments)
    if config is None:
        raise UserError(
            "name a config: fgjax train --config=aircraft:demo; `fgjax configs` lists them."
        )
    workdir = pathlib.Path(options.workdir or main.default_workdir(config))
    if options.devices is not None and not (options.dry_run and options.devices > 0):
        raise UserError(
            f"--devices={options.devices} goes with --dry-run and a number from 1 on; training "
            "takes the devices that there are."
        )
    if not options.dry_run:
        _meet(options)
    main.setup()
    if options.dry_run:
        if options.devices:
            dry_run.simulate_devices(options.devices)
        print(dry_run.text(dry_run.plan(config, workdir)))
        return
    preemption.install()
    results = main.run(config, workdir)
    if hosts.index():
        return
    scores = {k: v for k, v in results["metrics"].items() if isinstance(v, float)}
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"report: {workdir / 'report.html'}  results: {workdir / 'results.json'}")


def _meet(options: argparse.Namespace) -> None:
    """The other processes, where options or the environment speak of any."""
    given = (options.coordinator, options.processes, options.process)
    if None in given and set(given) != {None}:
        raise UserError(
            "--coordinator, --processes and --process go together: the first process' HOST:PORT, "
            "how many there are, and which this one is."
        )
    if options.coordinator or hosts.expected():
        hosts.join(*given)


if __name__ == "__main__":
    command_line.run(command)

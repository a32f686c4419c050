"""What a run would cost, before anything is trained: `fgjax train --config=… --dry-run`."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

import jax

from fgjax import main, methods
from fgjax.config import Config
from fgjax.data.datasets import assumed
from fgjax.models import sources
from fgjax.training.dry import Cost, DryRun, quiet


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run's stages and what they would take.

    Attributes:
      title: config, data and network in a line.
      costs: of each stage, in their order.
      remarks: sentences on what was assumed and found.
    """

    title: str
    costs: tuple[Cost, ...]
    remarks: tuple[str, ...]


def simulate_devices(count: int) -> None:
    """Have so many devices: the machine's own where they are as many, or else simulated CPUs.

    Must come before JAX is used.
    """
    jax.config.update("jax_num_cpu_devices", count)
    if jax.device_count() != count:
        from jax.extend import backend

        backend.clear_backends()
        jax.config.update("jax_platforms", "cpu")


def plan(
    config: Config,
    workdir: pathlib.Path,
    *,
    pool: pathlib.Path | None = None,
    compiles: bool = True,
) -> Plan:
    """Pass through the method's own code without data, weights or training; nothing is written.

    Args:
      config: the experiment.
      workdir: where the run would go; stages that are finished there are found.
      pool: of stages shared between runs, likewise.
      compiles: whether steps are compiled, for memory and operations.

    Raises:
      UserError: the config cannot work, or the workdir is another's.
    """
    main.check_values(config)
    main.check_owner(workdir, config)
    dataset, assumption = assumed.without_images(config.data)
    with tempfile.TemporaryDirectory() as scratch, quiet():
        run = DryRun(
            config, dataset, workdir, pool, scratch=pathlib.Path(scratch), known=not assumption,
            compiles=compiles,
        )  # fmt: skip
        methods.check(run)
        methods.of(config).run(run)
    title = (
        f"{config.name}: {len(dataset.train):,} training images ({len(run.held_out_indices):,} of "
        f"them held out), {len(dataset.test):,} test images, {dataset.num_classes} classes; "
        f"{config.backbone} at {config.data.image_size} px"
    )
    costs = tuple(run.costs.values())
    remarks = (assumption, _reuse(run), _weights(run.config.pretrained), _memory(compiles=compiles))
    return Plan(title, costs, tuple(remark for remark in remarks if remark))


def _reuse(run: DryRun) -> str:
    places = [str(p) for p in (run.pool or run.workdir, run.config.reuse) if p]
    found = [f"{cost.name} ({cost.found})" for cost in run.costs.values() if cost.found]
    if found:
        return f"Finished already, and so for nothing: {', '.join(found)}."
    some = any(path for place in places for path in pathlib.Path(place).glob("*/done.json"))
    if some and not run.known:
        return f"Whether the finished stages in {' and '.join(places)} fit cannot be told without "\
            "the dataset; here none is used."  # fmt: skip
    return f"No finished stage is found in {' or '.join(places)}: everything is to be trained."


def _weights(source: str) -> str:
    """Whether they are here; nothing is downloaded."""
    if not source:
        return ""
    problem = sources.missing(source)
    return problem[0].upper() + problem[1:] if problem else f"The weights {source} are here."


def _memory(*, compiles: bool) -> str:
    if not compiles:
        return ""
    device = jax.devices()[0]
    simulated = "simulated " if device.platform == "cpu" and jax.device_count() > 1 else ""
    name = (
        device.platform if device.platform == "cpu" else f"{device.platform} ({device.device_kind})"
    )
    return (
        f"Memory is of each of {jax.device_count()} {simulated}{name} device(s): XLA's analysis of "
        "the compiled training step, what it is given and returns and needs in between. Other "
        "backends need other amounts."
    )


# As text

_HEADS = ("stage", "steps", "trained on", "evaluated", "parameters", "trained", "", "peak", "model",
          "optimizer", "batch")  # fmt: skip
_BYTES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_OPERATIONS = (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))


def text(plan: Plan) -> str:
    """The plan as a table with its total, and the remarks."""
    peaks = [cost.memory.peak for cost in plan.costs if cost.memory]
    operations = sum(cost.operations for cost in plan.costs)
    size_unit, size = _unit(max(peaks, default=0), _BYTES)
    work_unit, work = _unit(operations, _OPERATIONS)
    rows = [_row(cost, size, work) for cost in plan.costs]
    rows.append((
        "total", *_counts(*(sum(getattr(cost, name) for cost in plan.costs)
                            for name in ("steps", "trained_images", "evaluated_images"))),
        "", "", f"{operations / work:,.1f}" if peaks else "",
        f"{max(peaks) / size:,.3g}" if peaks else "", "", "", "",
    ))  # fmt: skip
    heads = [*_HEADS[:6], work_unit, *_HEADS[7:]]
    if not peaks:
        heads[6:], rows = [], [row[:6] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    lines = [_line(row, widths) for row in (heads, *rows)]
    rule = "-" * len(lines[0])
    over = _over(widths, size_unit) if peaks else _over(widths[:6], "")
    table = [over, lines[0], rule, *lines[1:-1], rule, lines[-1]]
    return "\n".join([plan.title, "", *table, "", *plan.remarks])


def _unit(largest: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """The largest unit that leaves a number of at least 1."""
    return next((unit for unit in units if largest >= unit[1]), units[-1])


def _counts(*numbers: int) -> list[str]:
    return [f"{number:,}" if number else "-" for number in numbers]


def _row(cost: Cost, size: float, work: float) -> tuple[str, ...]:
    if cost.found:
        return (cost.name, "found", *[""] * 9)
    parameters = [f"{number / 1e6:,.2f} M" if number else "-"
                  for number in (cost.parameters, cost.trained_parameters)]  # fmt: skip
    sizes = [f"{part / size:,.3g}" for part in cost.memory] if cost.memory else ["-"] * 4
    done = f"{cost.operations / work:,.1f}" if cost.operations else "-"
    counts = _counts(cost.steps, cost.trained_images, cost.evaluated_images)
    return (cost.name, *counts, *parameters, done, *sizes)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first column to the left, numbers to the right."""
    first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths))
    return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()


def _over(widths: Sequence[int], unit: str) -> str:
    """What groups of columns have in common, above them."""
    begins = [sum(widths[:column]) + 2 * column for column in range(len(widths))]
    line = " " * begins[2] + "images"
    if unit:
        line = line.ljust(begins[7]) + f"memory of each device, {unit}"
    return line

"""`run(config, workdir)`: dataset → method → results.json and figures."""

import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import sys
from typing import Any

import jax

from fgjax import compilation, hosts, methods, models
from fgjax.config import Config, before, check, differences, identity, restore, without_added
from fgjax.data.datasets import Dataset, of_config
from fgjax.errors import UserError
from fgjax.training import network_check, writers
from fgjax.training.run import Run, write_json

log = logging.getLogger(__name__)

_PACKAGES = ("fgjax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets",
             "chex", "numpy", "opencv-python-headless")  # fmt: skip


def setup() -> None:
    """Logging to the terminal and the persistent compilation cache."""
    handler = logging.StreamHandler(sys.stderr)
    level = logging.ERROR if hosts.index() else logging.INFO  # the first process says it
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)
    for noisy in ("absl", "jax", "orbax", "matplotlib", "grain", "httpx", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    compilation.enable_cache()


def default_workdir(config: Config) -> pathlib.Path:
    """`runs/<config>-<method>`, from the current folder."""
    return pathlib.Path("runs") / config.name


def claim(workdir: pathlib.Path, config: Config, *, record: bool = True) -> None:
    """Make the workdir this config's own, or see whether that can be (`record=False`).

    Raises:
      UserError: it holds another config (names the fields), or cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write-test-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the workdir {workdir} cannot be written ({error.strerror or error}): "
            "choose another with --workdir."
        ) from error
    if not check_owner(workdir, config) and record:
        write_json(workdir / "config.json", _identity(config))


def _identity(config: Config) -> dict[str, Any]:
    """As config.json keeps it: with the weights by name, which a later default may not mean."""
    return json.loads(json.dumps(identity(models.name_weights(config))))


def check_owner(workdir: pathlib.Path, config: Config) -> bool:
    """Whether a workdir is this config's own already; nothing is written.

    Raises:
      UserError: it holds another config; names the fields.
    """
    path = workdir / "config.json"
    wanted = _identity(config)
    if path.exists():
        # Stored in full or by an earlier version: what it does not say is what was done before.
        stored = without_added(json.loads(path.read_text()), before(config))
        changed = differences(stored, wanted)
        if changed:
            raise UserError(
                f"the workdir {workdir} holds a run of another config ({'; '.join(changed)}): "
                "choose another --workdir, or remove it to start over."
            )
    return path.exists()


def fetch(config: Config) -> Dataset:
    """Weights and dataset, before anything is compiled; one sentence names all that is missing.

    Raises:
      UserError: one of them is not here and cannot be downloaded.
    """
    problems, dataset = [], None
    source = models.name_weights(config).pretrained
    if source:
        try:
            models.resolve(source)
        except UserError as error:
            problems.append(str(error).rstrip("."))
    try:
        dataset = of_config(config.data)
    except UserError as error:
        problems.insert(0, str(error).rstrip("."))
    if dataset is None or problems:
        hint = ""
        if not config.data.dataset.startswith(("synthetic", "folder")):
            hint = (
                "; for a first look without any download run `fgjax train --config=aircraft:demo`"
            )
        raise UserError("; and ".join(problems) + hint + ".")
    return dataset


def check_values(config: Config) -> None:
    """Refuse values that cannot work here, before anything is read or written.

    Raises:
      UserError: naming the field and what it may be.
    """
    check(config, jax.device_count())
    network_check.check(config)
    writers.check(config.writers)


def refuse_unfit(configs: list[Config]) -> None:
    """Refuse, before the first is trained, what one of several runs would be refused for.

    Raises:
      UserError: as `run` raises it for that config.
    """
    datasets: dict[str, Dataset] = {}
    for config in map(models.name_weights, configs):
        check_values(config)
        known = repr(config.data)
        if known not in datasets:
            datasets[known] = fetch(config)
        methods.check(Run(config, datasets[known], pathlib.Path()))


def run(
    config: Config, workdir: pathlib.Path, *, pool: pathlib.Path | None = None, figures: bool = True
) -> dict[str, Any]:
    """Train and measure as a config says; the same call again resumes.

    Args:
      config: the experiment.
      workdir: where everything goes.
      pool: folder of stages shared between runs, for studies.
      figures: whether to draw pictures at the end.

    Returns:
      What is written to `workdir`/results.json.

    Raises:
      UserError: whatever a person can mend.
    """
    config = models.name_weights(config)
    check_values(config)
    hosts.first(lambda: claim(workdir, config))
    hosts.first(lambda: fetch(config))  # downloads
    dataset = fetch(config)
    where = {
        "data_dir": config.data.data_dir,
        "manual_dir": config.data.manual_dir,
        "path": _absolute(config.data.path),
        "annotations": _absolute(config.data.annotations),
        "pool": _absolute(str(pool or "")),
        "reuse": _absolute(config.reuse),
    }
    write_json(workdir / "where.json", where)
    log.info(
        "%s: %d training and %d test images of %d classes, %d %s device(s), workdir %s",
        dataset.name, len(dataset.train), len(dataset.test), dataset.num_classes,
        jax.device_count(), jax.devices()[0].platform, workdir,
    )  # fmt: skip
    method = methods.of(config)
    context = Run(config, dataset, workdir, pool)
    methods.check(context)
    outcome = method.run(context)
    results = {
        "method": methods.name_of(method),
        "metrics": outcome["metrics"],
        "protocol": {**protocol(config, dataset, context), **outcome["protocol"]},
    }
    write_json(workdir / "results.json", results)
    if figures:
        hosts.first(lambda: draw(context))
        hosts.first(lambda: report(context, results))
    return results


def _absolute(path: str) -> str:
    """A path that means the same from anywhere; nothing stays nothing."""
    return str(pathlib.Path(path).absolute()) if path else ""


def draw(run: Run) -> None:
    """All pictures of a finished run into `workdir`/figures, those of its method included."""
    from fgjax.figures import common  # matplotlib takes its time, and predicting needs none

    stages = run.stages
    common.curves(run)
    if "objects" in stages:
        common.localization(run, stages["objects"], stages.get("parts"))
    for stage in stages.values():
        if (stage.folder / "predictions.npz").exists():
            common.confusions(run, stage)
    own = methods.part(methods.of(run.config), "figures")
    if own is not None:
        own.draw(run)
    log.info("pictures are in %s", run.workdir / "figures")


def report(run: Run, results: dict[str, Any]) -> None:
    """`workdir`/report.html, from the results and the pictures."""
    from fgjax import report  # draws, too

    log.info("report: %s", report.write(run, results))


def protocol(config: Config, dataset: Dataset, context: Run) -> dict[str, Any]:
    """What the metrics were measured under."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source"
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "zero_shot": config.data.zero_shot,
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "skipped_images": len(dataset.skipped),
        **({"images_per_class": config.data.shots} if config.data.shots else {}),
        "held_out_images": len(context.held_out_indices),
        "held_out_share": config.data.held_out,
        "image_size": config.data.image_size,
        "backbone": config.backbone,
        "pretrained": config.pretrained or "none: trained from scratch",
        "test_split_used_for_selection": False,
        "seed": config.seed,
        "devices": jax.device_count(),
        **({"processes": hosts.count()} if hosts.count() > 1 else {}),
        "device_kind": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "packages": versions,
    }


def open_run(workdir: pathlib.Path) -> Run:
    """A finished run, from its workdir alone; the dataset is needed for its class names.

    Raises:
      UserError: the folder holds no finished run.
    """
    if not (workdir / "results.json").exists():
        raise UserError(
            f"{workdir} holds no finished run (no results.json): train one first, "
            "fgjax train --config=… --workdir=…"
        )
    flat = json.loads((workdir / "config.json").read_text())
    results = json.loads((workdir / "results.json").read_text())
    config = Config(method=methods.get(results["method"]).Config())
    restore(config, flat)
    where = json.loads((workdir / "where.json").read_text())
    config.data.data_dir, config.data.manual_dir = where["data_dir"], where["manual_dir"]
    config.reuse, config.data.path = where.get("reuse", ""), where.get("path", "")
    config.data.annotations = where.get("annotations", "")
    dataset = of_config(config.data)
    pool = pathlib.Path(where["pool"]) if where["pool"] else None
    return Run(config, dataset, workdir, pool, finished=True)

"""What stands between this machine and a training run, and what to do about it.

fgjax doctor
fgjax doctor --config=cub:ccfr

takes the words of fgjax train; the exit code is 0 only when that training would start.
"""

import collections
import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import urllib.error
import urllib.request

import numpy as np
from packaging.requirements import InvalidRequirement, Requirement

from fgjax import command_line, compilation, huge_pages, main, models
from fgjax.config import Config
from fgjax.data import datasets
from fgjax.data.datasets import archives
from fgjax.errors import UserError
from fgjax.models import sources

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"
DEMO = "fgjax train --config=aircraft:demo"
_ROOT = pathlib.Path(__file__).parents[1]
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      level: OK; NOTE, worth knowing; PROBLEM, with which training would not start.
      text: what was found.
      remedy: what to do about it.
    """

    level: str
    text: str
    remedy: str = ""


def machine() -> list[Finding]:
    """Python, packages, devices and memory."""
    found = []
    version = platform.python_version()
    wrong = _packages()
    if wrong:
        found.append(Finding(PROBLEM, f"packages: {'; '.join(wrong)}",
                             "install fgjax anew: pip install ."))  # fmt: skip
    else:
        found.append(Finding(OK, f"Python {version}, all packages as fgjax wants them"))
    return found + _devices() + _extras()


def _requirements() -> list[str]:
    """The checkout's requirements.txt, or what the installed package says of itself."""
    path = _ROOT / "requirements.txt"
    if path.is_file():
        return path.read_text().splitlines()
    try:
        return importlib.metadata.requires("fgjax") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _packages() -> list[str]:
    """Requirements that are missing or of another version."""
    wrong = []
    for line in _requirements():
        try:
            wanted = Requirement(line.split("#")[0].strip())
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            here = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if here not in wanted.specifier:
            wrong.append(f"{wanted.name} is {here}, not {wanted.specifier}")
    return wrong


def _extras() -> list[Finding]:
    """What is not needed for training and may be missing."""
    found = []
    for extra, package, what, use in (
        ("docs", "mkdocs-material", "documentation tools", "building the site"),
        ("serve", "fastapi", "the page's server", "fgjax serve"),
    ):
        try:
            importlib.metadata.version(package)
            found.append(Finding(OK, f"{what}: installed"))
        except importlib.metadata.PackageNotFoundError:
            text = f"{what}: not installed; only {use} needs them"
            found.append(Finding(OK, text, f'pip install "fgjax[{extra}]"'))
    return found


def _devices() -> list[Finding]:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        return [Finding(PROBLEM, f"JAX finds no device: {str(error).splitlines()[0]}",
                        "check the driver, or set JAX_PLATFORMS=cpu")]  # fmt: skip
    kinds = collections.Counter(device.device_kind for device in devices)
    text = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    limit = (devices[0].memory_stats() or {}).get("bytes_limit") if devices else None
    text += f" with {limit / _GIB:.0f} GiB each" if limit else ""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    text += f"; {os.cpu_count()} CPU cores, {total:.0f} GiB of memory"
    found = [Finding(OK, f"devices: {text}")]
    if devices[0].platform == "cpu":
        found.append(Finding(
            NOTE, "no accelerator: the papers' configs take days here, the demos minutes",
            'with an NVIDIA GPU: pip install "jax[cuda13]"'))  # fmt: skip
        found.append(_numbers())
        found += _pages()
    return found


def _pages() -> list[Finding]:
    if huge_pages.mode() != "never":
        return []
    return [Finding(NOTE, "Linux gives no huge pages, without which a step of EfficientNet takes a "
                    "third longer",
                    f"echo madvise | sudo tee {huge_pages.FILE}")]  # fmt: skip


def _numbers() -> Finding:
    """Whether XLA computes what it should, as fgjax compiles; asked anew, not remembered."""
    chosen = compilation.options()
    wrong = compilation.wrong_programs(chosen)
    if wrong:
        return Finding(NOTE, f"XLA computes wrong numbers here: {'; '.join(wrong)}",
                       compilation.remedy())  # fmt: skip
    if chosen == compilation.LIBRARY_OFF:
        return Finding(OK, "XLA computes right numbers here, with its library of CPU kernels off: "
                           "with it, some are wrong")  # fmt: skip
    return Finding(OK, "XLA computes right numbers here")


def reachable(url: str) -> bool:
    """Whether a server answers for an address."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (403, 405)  # it is there but does not like the question
    except (OSError, ValueError):
        return False


def dataset(config: Config) -> list[Finding]:
    """Present, complete, readable, without images in both splits, and balanced."""
    data = config.data
    if data.dataset != "folder":
        absent = _absent(data)
        if absent:
            return absent
    try:
        opened = datasets.of_config(data)
    except UserError as error:
        return [Finding(PROBLEM, "dataset", str(error))]
    found = [
        Finding(
            OK, f"dataset {opened.name}: {len(opened.train):,} training and {len(opened.test):,} "
                f"test images of {opened.num_classes} classes"
        )
    ]  # fmt: skip
    if opened.skipped:
        listed = ", ".join(opened.skipped[:3])
        found.append(Finding(NOTE, f"{len(opened.skipped)} files cannot be read and are left out, "
                                   f"the first: {listed}", "mend or remove them"))  # fmt: skip
    return found + _doubles(opened) + _balance(opened)


def _absent(data) -> list[Finding]:
    """What to do where an official dataset has not been prepared; nothing where it has."""
    try:
        builder = datasets.builder_of(
            data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir
        )
    except UserError as error:
        return [Finding(PROBLEM, "dataset", str(error))]
    layout = builder.layout()
    if pathlib.Path(builder.data_path).exists() or layout is None:
        return []
    missing = layout.missing(builder.manual_dir)
    if not missing:
        return []
    if not all(file.url for file in missing):
        return [Finding(PROBLEM, f"{builder.title} is missing",
                        layout.ask(builder.title, builder.manual_dir))]  # fmt: skip
    names = ", ".join(file.name for file in missing)
    unreachable = next((file for file in missing if not reachable(file.url)), None)
    if unreachable is None:
        return [Finding(NOTE, f"{builder.title} is not here yet: training begins by downloading "
                              f"{names}")]  # fmt: skip
    return [
        Finding(
            PROBLEM, f"{builder.title} is not here, and {unreachable.url} cannot be reached",
            f"get {names} on another machine and put it into {builder.manual_dir}",
        )
    ]  # fmt: skip


def _doubles(opened: datasets.Dataset) -> list[Finding]:
    """Images that are in both splits, byte by byte."""
    digests = []
    for split in (opened.train, opened.test):
        digests.append({
            hashlib.sha256(split.source[row]["image"]).digest(): split.filenames[row]
            for row in range(len(split))
        })  # fmt: skip
    both = digests[0].keys() & digests[1].keys()
    if not both:
        return [Finding(OK, "no image is in both splits")]
    pairs = sorted(f"{digests[0][d]} = {digests[1][d]}" for d in both)
    return [Finding(NOTE, f"{len(both)} images are in both the training and the test split, the "
                          f"first: {pairs[0]}", "remove one of each: they make the test accuracy "
                                                "too high")]  # fmt: skip


def _balance(opened: datasets.Dataset) -> list[Finding]:
    counts = np.bincount(opened.train.labels, minlength=opened.num_classes)
    names, least, most = opened.class_names, int(counts.argmin()), int(counts.argmax())
    text = (f"training images of a class: {counts[least]} ({names[least]}) to {counts[most]} "
            f"({names[most]}), median {np.median(counts):.0f}")  # fmt: skip
    empty = [names[k] for k in np.flatnonzero(counts == 0)]
    if empty:
        return [Finding(NOTE, f"{len(empty)} classes have no training image: "
                              f"{', '.join(empty[:5])}"), Finding(OK, text)]  # fmt: skip
    if counts[most] > 10 * counts[least] or counts[least] < 2:
        return [Finding(NOTE, text, "more images of the rare classes would help")]
    return [Finding(OK, text)]


def weights(config: Config) -> list[Finding]:
    """The pretrained weights: here, or to be had."""
    source = models.name_weights(config).pretrained
    if not source:
        return [Finding(OK, "weights: none, training starts from scratch")]
    problem = sources.missing(source)
    if not problem:
        return [Finding(OK, f"weights {source}")]
    if not sources.on_hub(source):
        return [Finding(PROBLEM, "weights", problem)]
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if reachable(f"{endpoint}/{source}/resolve/main/model.safetensors"):
        return [Finding(NOTE, f"weights {source} will be downloaded")]
    return [
        Finding(
            PROBLEM, f"weights {source} are not cached and {endpoint} cannot be reached",
            "give a local file, --config.pretrained=FILE.safetensors, or train from scratch, "
            "--config.pretrained=''",
        )
    ]  # fmt: skip


def workdir(config: Config, folder: pathlib.Path) -> list[Finding]:
    """Writable, with room, and not another run's."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        main.claim(folder, config, record=False)
    except UserError as error:
        return [Finding(PROBLEM, f"workdir {folder}", str(error))]
    free = shutil.disk_usage(folder).free / _GIB
    state = "holds this run: it would resume" if (folder / "config.json").exists() else "is free"
    for path in made:
        path.rmdir()
    text = f"workdir {folder} {state}; {free:.0f} GiB left on its disk"
    if free < 2:
        return [Finding(NOTE, text, "checkpoints of large networks take about 1 GiB: make room")]
    return [Finding(OK, text)]


def settings(config: Config) -> list[Finding]:
    """Whether the config's values can work on these devices."""
    try:
        main.check_values(config)
    except UserError as error:
        return [Finding(PROBLEM, "config", str(error))]
    return [Finding(OK, f"config {config.name}")]


def overview() -> list[Finding]:
    """Without a config: what there is to train on."""
    found = [Finding(OK, "built-in data: nothing to download", DEMO)]
    for name in datasets.names():
        builder = datasets.builder_of(name)
        layout = builder.layout()
        if layout is None:
            continue
        if pathlib.Path(builder.data_path).exists():
            found.append(Finding(OK, f"{builder.title} is prepared"))
            continue
        missing = layout.missing(builder.manual_dir)
        found.append(Finding(NOTE, f"{builder.title} is not prepared", _how(builder, missing)))
    return [*found, Finding(NOTE, "images of your own", "a folder for each class, and "
                            "--config=folder --config.data.path=FOLDER")]  # fmt: skip


def _how(builder, missing: list[archives.Official]) -> str:
    manual = [file.name for file in missing if not file.url]
    if manual:
        return f"put {', '.join(manual)} into {builder.manual_dir}"
    if missing:
        names = ", ".join(file.name for file in missing)
        return f"downloaded when it is first used, or put {names} into {builder.manual_dir}"
    return "its files are here: the first training prepares it"


def examine(config: Config | None, folder: pathlib.Path | None) -> list[Finding]:
    """Everything."""
    found = machine()
    if config is None:
        return found + overview()
    if any(finding.level == PROBLEM for finding in found):
        return found
    found += settings(config) + dataset(config) + weights(config)
    return found + workdir(config, folder or main.default_workdir(config))


def report(found: list[Finding]) -> str:
    """One line for each finding, and an arrow before what to do."""
    lines = []
    for finding in found:
        lines.append(f"[{finding.level}] {finding.text}")
        if finding.remedy:
            lines.append(f"    → {finding.remedy}")
    return "\n".join(lines)


def command(arguments: list[str] | None = None) -> int:
    """`fgjax doctor`."""
    parser = command_line.parser_of("doctor", __doc__)
    command_line.add_config_options(parser)
    options, config = command_line.parse(parser, arguments)
    main.setup()
    found = examine(config, pathlib.Path(options.workdir) if options.workdir else None)
    print(report(found))
    problems = sum(finding.level == PROBLEM for finding in found)
    if problems:
        few = "1 problem" if problems == 1 else f"{problems} problems"
        print(f"\n{few}: training would not start. Without any download there is\n    {DEMO}")
        return 1
    if config is None:
        print(f"\nThis machine is fit. Begin with\n    {DEMO}\nor name a config, --config=…, to "
              "see whether it would start.")  # fmt: skip
        return 0
    print("\nTraining would start: the same words after fgjax train.")
    return 0


if __name__ == "__main__":
    command_line.run(command)

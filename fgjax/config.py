"""The configuration's types, shared by all methods.

A config file returns a `Config`; every field can be overridden on the command line, e.g.
`--config.data.image_size=224 --config.method.margin.epochs=10`. Each method's own hyper-parameters
are a dataclass in its file under `fgjax/methods/`.
"""

import dataclasses
from typing import Any

from fgjax.errors import UserError
from fgjax.ranges import among, outside, within


def added(default: Any, *, before: Any) -> Any:
    """A field that configs of earlier versions do not have.

    `before` is what those versions did. A config or stage with that value is the same as one
    without the field, so that runs from before it are found, used and resumed.
    """
    return dataclasses.field(default=default, metadata={"before": before})


MEASURED = -1  # of `data.workers`


@dataclasses.dataclass
class Augmentation:
    """What happens to a training image; evaluation sees the whole window."""

    # Smallest side of the random crop, as a share of the window.
    crop_scale: float = within(0.875, 0, 1, above=True)
    flip: bool = True
    color: bool = False  # channel permutation, partial grey and gains: the demo's


@dataclasses.dataclass
class Data:
    """Which images, and how they are read."""

    dataset: str = "fgvc_aircraft"
    data_dir: str = ""  # prepared files; default $FGJAX_DATA or ~/.cache/fgjax/data
    manual_dir: str = ""  # official archives; default data_dir/manual
    path: str = ""  # the folder of images, with dataset=folder
    annotations: str = added("", before="")  # its parts and boxes: a COCO file, or CUB's folder
    # Of each class, where that folder has no train and test sub-folders.
    test_share: float = within(0.2, 0, 1, above=True, below=True)
    # Decides which images those are; apart from `seed`, so that runs compare.
    split_seed: int = within(0, 0, 2**32 - 1)
    zero_shot: bool = False  # train on the first half of the classes, test on the other half
    image_size: int = within(448, 16, 8192)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    # Share of the training split that serves every selection: images, with zero_shot classes.
    held_out: float = within(0.1, 0, 1, below=True)
    # Training images of each class that are used, drawn by `seed`; 0: all of them.
    shots: int = within(0, 0, 1_000_000, before=0)
    # Processes that decode and mix; 0 uses threads of the main one, -1 what some seconds of
    # measuring find fastest, when the first loop starts.
    workers: int = within(MEASURED, MEASURED, 256)
    prefetch: int = within(4, 1, 1000)  # batches that each worker keeps ready
    # Seconds without a batch after which a run stops; there was no end before.
    patience: float = within(60.0, 1, 86400, before=86400.0)


@dataclasses.dataclass
class Optimizer:
    """SGD with the papers' step decay, or AdamW with warm-up and cosine for the demo."""

    name: str = among("sgd", "adamw")
    learning_rate: float = within(1e-3, 0, 1000, above=True)
    momentum: float = within(0.9, 0, 1, below=True)
    weight_decay: float = within(1e-4, 0, 1000)
    schedule: str = among("step", "cosine", "constant")
    decay_rate: float = within(0.1, 0, 1, above=True)
    decay_epochs: int = within(30, 1)
    warmup_epochs: float = within(0.0, 0)
    clip: float = within(0.0, 0)  # largest global norm of the gradient; 0: no clipping
    # Decay of the parameters' running average, which is measured and saved in their place; 0: none.
    ema: float = within(0.0, 0, 1, below=True, before=0.0)
    # Micro-batches that a batch is cut into, one after the other, for a fraction of the memory.
    accumulate: int = within(1, 1, before=1)
    # The rate of a backbone's last block is so many times the head's, of the one below it that much
    # less again, and so on; 1: the same for all.
    layer_decay: float = within(1.0, 0, 1, above=True, before=1.0)


@dataclasses.dataclass
class Training:
    """How long and in which batches a stage trains."""

    epochs: int = within(30, 0, 1_000_000)
    batch_size: int = within(32, 1, 1_000_000)  # over all devices
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    # End with the network of the epoch that was best on held-out images, in loops that look at any;
    # they look after every epoch then.
    keep_best: bool = added(False, before=False)

    @property
    def micro_batch_size(self) -> int:
        """Examples that the loss sees at once."""
        return self.batch_size // self.optimizer.accumulate


@dataclasses.dataclass
class Checkpoints:
    """When the loop saves and looks."""

    every_steps: int = within(0, 0)  # besides the end of each epoch; 0: epochs only
    evaluate_every: int = within(5, 0)  # epochs between looks at the held-out images; 0: never
    # The newest so many stay until a stage has ended: where the last is damaged, another is taken.
    keep: int = within(2, 1, 1000, before=1)


@dataclasses.dataclass
class Config:
    """A whole experiment."""

    name: str = ""
    seed: int = within(0, 0, 2**32 - 1)
    backbone: str = "resnet50"
    pretrained: str = "default"  # the backbone's own; a package, Hub repository or file; '': none
    dtype: str = among("float32", "bfloat16")  # of the convolutions
    last_stride: int = within(2, 1, 2)  # of the backbone's last stage; 1 doubles the last map
    pooling: str = among("average", "max", "max_average")  # of the last map
    # Share of the pooled feature that training drops.
    dropout: float = within(0.0, 0, 1, below=True)
    # Maps of the backbone (stem,stage1), globs of its modules (stages.0.*) or all of its
    # batch_norms, which no stage changes.
    freeze: str = added("", before="")
    # Whether each block of the backbone is computed a second time in the backward pass, which then
    # needs less memory.
    remat: bool = added(False, before=False)
    data: Data = dataclasses.field(default_factory=Data)
    checkpoints: Checkpoints = dataclasses.field(default_factory=Checkpoints)
    # Where metrics go besides metrics.jsonl: tensorboard, wandb, mlflow, module:Class of one's own.
    writers: str = added("tensorboard", before="tensorboard")
    reuse: str = ""  # workdir of another run, whose finished stages are taken where they fit
    method: Any = None  # the dataclass `Config` of a file in fgjax/methods/


# Fields that change how a run is carried out but not what it computes.
_INDIFFERENT = ("data.data_dir", "data.manual_dir", "data.workers", "data.prefetch",
                "data.patience", "checkpoints.", "reuse", "remat", "writers")  # fmt: skip


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as {dotted name: value}."""
    flat = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{field.name}."))
        else:
            flat[prefix + field.name] = list(value) if isinstance(value, tuple) else value
    return flat


def before(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted name: what earlier versions did} of the fields that were `added`."""
    found = {}
    for field in dataclasses.fields(config):
        if "before" in field.metadata:
            earlier = field.metadata["before"]
            found[prefix + field.name] = list(earlier) if isinstance(earlier, tuple) else earlier
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found.update(before(value, f"{prefix}{field.name}."))
    return found


def without_added(flat: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version would have written: no field that says what was done anyway."""
    return {k: v for k, v in flat.items() if not (k in earlier and v == earlier[k])}


def identity(config: Any) -> dict[str, Any]:
    """The fields that decide what a run computes; two runs with equal identity are the same."""
    flat = without_added(flatten(config), before(config))
    return {k: v for k, v in flat.items() if not k.startswith(_INDIFFERENT)}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Sentences `field: old -> new` for all fields in which two flat configs differ."""
    return [
        f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted({*old, *new})
        if old.get(key, "absent") != new.get(key, "absent")
    ]


def restore(config: Any, flat: dict[str, Any]) -> Any:
    """Write stored values back into a config of the same types, in place.

    Fields that were `added` later and are absent count as what was done before.

    Raises:
      UserError: a stored field does not exist any more.
    """
    return _write(config, {**before(config), **flat})


def _write(config: Any, flat: dict[str, Any]) -> Any:
    for key, value in flat.items():
        holder, *names = config, *key.split(".")
        for name in names[:-1]:
            holder = getattr(holder, name, None)
        if not hasattr(holder, names[-1]):
            raise UserError(f"the stored config has a field {key} that this version does not know.")
        current = getattr(holder, names[-1])
        setattr(holder, names[-1], tuple(value) if isinstance(current, tuple) else value)
    return config


def check(config: Config, devices: int) -> None:
    """Refuse values that cannot work; method configs check relations in `validate`.

    Raises:
      UserError: naming the field, its value and what it may be.
    """
    data = config.data
    for name, value, wanted in outside(config):
        _require(False, name, value, wanted)
    flat = flatten(config)
    for key, value in flat.items():
        name = key.rsplit(".", 1)[-1]
        if name == "batch_size":
            _require(value % devices == 0, key, value, f"divisible by the {devices} devices")
        elif key.endswith("optimizer.accumulate") and value > 1:
            _check_micro_batches(flat, key, devices)
    known = getattr(config.method, "searches_unseen_classes", False)
    wanted = "False: this method classifies, and would not know the classes of the other half"
    _require(known or not data.zero_shot, "data.zero_shot", True, wanted)
    fine = data.dataset == "folder" or not data.annotations
    wanted = f"empty: {data.dataset} has its own; they are for dataset=folder"
    _require(fine, "data.annotations", data.annotations, wanted)
    if hasattr(config.method, "validate"):  # relations between its fields
        config.method.validate()


def _check_micro_batches(flat: dict[str, Any], key: str, devices: int) -> None:
    """Every batch size beside an optimizer, or below what it stands beside, must be divisible."""
    accumulate: int = flat[key]
    place = key.rsplit(".", 2)[0] + "."
    for field, size in flat.items():
        if field.startswith(place) and field.endswith("batch_size"):
            wanted = f"a number of equal parts of config.{field} = {size}, each divisible by the"
            _require(size % (accumulate * devices) == 0, key, accumulate,
                     f"{wanted} {devices} devices")  # fmt: skip


def _require(condition: bool, field: str, value: Any, wanted: str) -> None:
    if not condition:
        raise UserError(f"config.{field} is {value!r}, but must be {wanted}.")


def require(condition: bool, field: str, value: Any, wanted: str) -> None:
    """`check`'s refusal, for the methods' own fields: "config.method.FIELD is …"."""
    _require(condition, f"method.{field}", value, wanted)


def require_classes(field: str, training: Training, per_class: int) -> None:
    """Refuse batches of `config.method.FIELD` that do not hold whole classes, two at least."""
    size, parts = training.micro_batch_size, training.optimizer.accumulate
    each = f" in each of its {parts} micro-batches" if parts > 1 else ""
    wanted = f"a multiple of per_class = {per_class} with at least two classes{each}"
    fine = size >= 2 * per_class and size % per_class == 0
    require(fine, f"{field}.batch_size", training.batch_size, wanted)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a study.

    Attributes:
      overrides: {"method.alpha": 1.2}; a callable gets the config and returns the value.
      paper: the paper's number, if it has one.
      metric: the entry of results.json that the row shows, if not the study's.
      paper_also: the paper's numbers for what the study shows beside it, {metric: number}.
      search: whether the study's search, where it has one, is for this row, too.
      note: what stands beside its name in a table.
    """

    name: str
    overrides: dict[str, Any]
    paper: float | None = None
    metric: str = ""
    paper_also: dict[str, float] = dataclasses.field(default_factory=dict)
    search: bool = True
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Search:
    """What each row of a study tries on held-out training data before it is measured.

    Attributes:
      candidates: {name: overrides}; with seed 0 each row finds its own.
      metric: the entry of results.json that decides, of what was held out; the largest wins.
      overrides: of all that is tried, such as how much is held out.
    """

    candidates: dict[str, dict[str, Any]]
    metric: str
    overrides: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Study:
    """A table or figure of a paper as data: what varies from row to row.

    Attributes:
      source: which table of which paper.
      metric: the entry of results.json that is compared, a fraction shown in per cent.
      notes: further entries to print.
      also: further fractions to print in per cent, with their spread.
      axes: two fields that the rows vary over a grid: the table is that grid, the plot a surface;
        or one field of numbers, which makes the plot a curve.
      flags: words that the config's argument must have; `fgjax study` adds them.
      search: how rows find what is not the same for all, before they are measured.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    metric: str = "top1"
    notes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    search: Search | None = None

    def tried(self) -> "Study":
        """The search as a study of its own: a row for each candidate of each row."""
        search = self.search
        if search is None:
            raise ValueError(f"{self.title}: nothing is searched.")
        rows = tuple(
            Row(
                f"{row.name}: {name}", followed_by({**row.overrides, **search.overrides}, candidate)
            )
            for row in self.rows
            for name, candidate in search.candidates.items()
            if row.search
        )
        title = f"{self.title}: what each row found on held-out training data"
        return dataclasses.replace(
            self, title=title, source="Our question", rows=rows, metric=search.metric, also=(),
            notes=(), axes=(), search=None,
        )  # fmt: skip


def followed_by(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Both overrides as one; callables of the second get the config that the first has made."""

    def after(value):
        return (lambda config: value(override(config, first))) if callable(value) else value

    return {**first, **{name: after(value) for name, value in then.items()}}


def override(config: Config, overrides: dict[str, Any]) -> Config:
    """A copy of a config with dotted fields replaced; callables are applied to the original.

    Raises:
      UserError: a field does not exist.
    """
    import copy

    changed = copy.deepcopy(config)
    values = {k: v(config) if callable(v) else v for k, v in overrides.items()}
    return _write(changed, values)

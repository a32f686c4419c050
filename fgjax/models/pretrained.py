"""ImageNet weights: a table of key patterns for each family, checked to the last key.

Sources are a Hugging Face Hub repository (`timm/resnet50.tv_in1k`) or a local `.safetensors` file
with torchvision's key names. No PyTorch, no pickle.
"""

import dataclasses
import hashlib
import logging
import pathlib
import re
from collections.abc import Callable
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from fgjax.errors import UserError
from fgjax.models import densenet, efficientnet, inception, resnet, vgg
from fgjax.models.backbone import Backbone

log = logging.getLogger(__name__)

Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where the arrays of a torchvision module go.

    Attributes:
      pattern: of the key without its last word (`weight`, `running_mean` …).
      path: from the match to our module's path; None leaves the keys out.
      reshape: applied to a weight before its axes are turned to ours.
      note: for the log, where keys are left out.
    """

    pattern: str
    path: Callable[[re.Match], Path] | None
    reshape: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""


def _block(match: re.Match, name: str) -> Path:
    return "blocks", int(match[1]) - 1, int(match[2]) - 1, name


_RESNET = (
    Rule(r"(conv1|bn1|fc)", lambda m: (m[1],)),
    Rule(r"layer(\d)\.(\d+)\.(conv\d|bn\d)",
         lambda m: ("stages", int(m[1]) - 1, int(m[2]), m[3])),
    Rule(r"layer(\d)\.(\d+)\.downsample\.([01])",
         lambda m: ("stages", int(m[1]) - 1, int(m[2]), "downsample", int(m[3]))),
)  # fmt: skip
# torchvision's published DenseNet files say `norm.1` where its modules say `norm1`.
_DENSENET = (
    Rule(r"features\.(conv0|norm0|norm5)", lambda m: (m[1],)),
    Rule(r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?([12])",
         lambda m: _block(m, m[3] + m[4])),
    Rule(r"features\.transition(\d)\.(norm|conv)", lambda m: ("transitions", int(m[1]) - 1, m[2])),
    Rule(r"classifier", lambda m: ("fc",)),
)  # fmt: skip
# timm's keys are torchvision's, with or without the auxiliary head.
_INCEPTION = (
    Rule(r"(Conv2d_\w+)\.(conv|bn)", lambda m: (m[1], m[2])),
    Rule(r"(Mixed_\w+)\.(\w+)\.(conv|bn)", lambda m: (m[1], m[2], m[3])),
    Rule(r"fc", lambda m: ("fc",)),
    Rule(r"AuxLogits\..*", None, note="the auxiliary head is not used"),
)
# The keys of the package efficientnet-lite-pytorch.
_EFFICIENTNET = (
    Rule(r"_(conv_stem|conv_head|bn0|bn1|fc)", lambda m: (m[1],)),
    Rule(r"_blocks\.(\d+)\._(\w+)", lambda m: ("blocks", int(m[1]), m[2])),
)


def _vgg(model: vgg.VGG) -> tuple[Rule, ...]:
    """The numbers that torchvision gives to every layer of `features`, pooling and ReLU too."""
    places: dict[int, Path] = {}
    number = 0
    for stage, depth in enumerate(model.depths):
        for block in range(depth):
            places[number] = ("stages", stage, block, "conv")
            if model.batch_norm:
                places[number + 1] = ("stages", stage, block, "bn")
            number += 3 if model.batch_norm else 2
        number += 1
    absent: Path = ("absent",)
    convolutions = Rule(r"features\.(\d+)", lambda m: places.get(int(m[1]), absent))
    if not model.original:
        note = "fc6 and fc7 are left out: the head is one layer on the pooled feature"
        names = r"classifier\.[03]|pre_logits\.fc[12]"
        return (convolutions, Rule(names, None, note=note),
                Rule(r"classifier\.6|head\.fc", lambda m: ("fc",)))  # fmt: skip
    grid = (vgg.WIDTHS[-1], vgg.GRID, vgg.GRID)
    to_grid = lambda w: w.reshape(len(w), *grid)  # noqa: E731
    torchvision = (
        Rule(r"classifier\.0", lambda m: ("hidden", 0), reshape=to_grid),
        Rule(r"classifier\.3", lambda m: ("hidden", 1)),
        Rule(r"classifier\.6", lambda m: ("fc",)),
    )
    timm = (  # the hidden layers as convolutions
        Rule(r"pre_logits\.fc1", lambda m: ("hidden", 0)),
        Rule(r"pre_logits\.fc2", lambda m: ("hidden", 1)),
        Rule(r"head\.fc", lambda m: ("fc",)),
    )
    return (convolutions, *torchvision, *timm)


_RULES: dict[type[Backbone], Callable[..., tuple[Rule, ...]]] = {
    resnet.ResNet: lambda model: _RESNET,
    vgg.VGG: _vgg,
    densenet.DenseNet: lambda model: _DENSENET,
    inception.Inception: lambda model: _INCEPTION,
    efficientnet.EfficientNetLite: lambda model: _EFFICIENTNET,
}
_LEAVES = {
    "weight": ("kernel", "scale"), "bias": ("bias",),
    "running_mean": ("mean",), "running_var": ("var",),
}  # fmt: skip
_IGNORED = "num_batches_tracked"


def _turned(array: np.ndarray, leaf: str | int, dimensions: int) -> np.ndarray:
    """PyTorch's axes to ours: OIHW to HWIO, [out, in] to [in, out], a grid of weights to rows."""
    if leaf != "kernel":
        return array
    if array.ndim == 4:
        turned = array.transpose(2, 3, 1, 0)
        return turned if dimensions == 4 else turned.reshape(-1, turned.shape[-1])
    return array.T


def resolve(source: str) -> pathlib.Path:
    """Path of the weights file: a local `.safetensors`, or one fetched from the Hub and cached.

    A file of the Hub is compared with its published SHA-256; one that differs is removed.

    Raises:
      UserError: the file is missing, is a pickle, is corrupt, or the Hub cannot be reached.
    """
    path = pathlib.Path(source).expanduser()
    if path.suffix in (".pth", ".pt", ".bin", ".pkl", ".ckpt"):
        raise UserError(
            f"{source} is a pickle, which fgjax does not open: convert it once with PyTorch, "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')."
        )
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UserError(f"the weights file {source} does not exist.")
        return path
    import huggingface_hub
    from huggingface_hub import errors as hub_errors

    try:
        path = pathlib.Path(huggingface_hub.hf_hub_download(source, "model.safetensors"))
    except Exception as error:  # the client's own, its HTTP library's, the system's: all mean this
        offline = isinstance(error, hub_errors.LocalEntryNotFoundError)
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = "the Hub cannot be reached" if offline else said
        raise UserError(
            f"the ImageNet weights {source} are not cached and could not be downloaded ({reason}); "
            "give a local file with --config.pretrained=FILE.safetensors, or train from scratch "
            "with --config.pretrained=''."
        ) from error
    _check_download(path, source)
    return path


def _check_download(path: pathlib.Path, source: str) -> None:
    """The Hub's cache names a large file by its SHA-256; anything else must at least parse."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with open(blob, "rb") as file:
            fits = hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    else:
        try:
            with safetensors.safe_open(blob, "numpy"):
                fits = True
        except (safetensors.SafetensorError, OSError):
            fits = False
    if not fits:
        for broken in {path, blob}:
            broken.unlink(missing_ok=True)
        raise UserError(
            f"the downloaded weights {source} are corrupt and were removed from the cache: "
            "run the same command again to fetch them once more."
        )


def load_pretrained(model: Backbone, source: str) -> list[str]:
    """Fill a backbone with pretrained weights, in place.

    The classifier head is left as it is when its size differs.

    Args:
      model: a module made by `fgjax.models.build`.
      source: Hub repository or local `.safetensors` file with torchvision's or timm's keys.

    Returns:
      Notes for the log, such as that the head was replaced.

    Raises:
      UserError: listing together every unmapped key, wrong shape and unfilled parameter.
    """
    path = resolve(source)
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).") from error
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    wanted = cast(dict[Path, Any], dict(nnx.to_flat_state(state)))
    shapes = {target: variable.get_value().shape for target, variable in wanted.items()}
    filled, notes, problems = _match(arrays, _RULES[type(model)](model), shapes)
    if problems:
        shown = "; ".join(problems[:12]) + ("; …" if len(problems) > 12 else "")
        raise UserError(
            f"{path} does not fit this backbone, {len(problems)} keys differ: {shown}. "
            "Choose the --config.backbone that the file was made for."
        )
    for target, value in filled.items():
        wanted[target].set_value(jnp.asarray(value, jnp.float32))
    for note in notes:
        log.info("pretrained weights: %s", note)
    return notes


def _match(arrays: dict[str, np.ndarray], rules: tuple[Rule, ...], shapes: dict[Path, tuple]):
    """Arrays by our path, notes, and everything that does not fit."""
    filled: dict[Path, np.ndarray] = {}
    notes: dict[str, None] = {}  # an ordered set
    problems, replaced = [], {}
    for key, array in arrays.items():
        module, _, word = key.rpartition(".")
        if word == _IGNORED:
            continue
        found = next(((r, m) for r in rules if (m := re.fullmatch(r.pattern, module))), None)
        if found is None:
            problems.append(f"unmapped key {key}")
            continue
        rule, match = found
        if rule.path is None:
            notes[rule.note] = None
            continue
        target = _target(rule.path(match), word, shapes)
        if target is None:
            problems.append(f"unmapped key {key}")
            continue
        if target in filled or target in replaced:
            problems.append(f"key {key} fills {_dotted(target)} a second time")
            continue
        turned = rule.reshape(array) if rule.reshape and word == "weight" else array
        turned = _turned(turned, target[-1], len(shapes[target]))
        if turned.shape == shapes[target]:
            filled[target] = turned
        elif target[0] == "fc":
            replaced[target] = array.shape
        else:
            problems.append(
                f"{key} has shape {array.shape}, which does not fit {shapes[target]} here"
            )
    if replaced:  # half a head is of no use
        for target in [t for t in filled if t[0] == "fc"]:
            replaced[target] = filled.pop(target).shape
        sizes = " and ".join(str(shape) for shape in replaced.values())
        ours = shapes["fc", "kernel"]
        notes[f"the file's classifier {sizes} is replaced by a new head {ours}"] = None
    for target in shapes:
        if target not in filled and target not in replaced:
            problems.append(f"nothing fills {_dotted(target)}")
    return filled, list(notes), problems


def _target(module: Path, word: str, shapes: dict[Path, tuple]) -> Path | None:
    for leaf in _LEAVES.get(word, ()):
        if (*module, leaf) in shapes:
            return (*module, leaf)
    return None


def _dotted(target: Path) -> str:
    return ".".join(map(str, target))

"""ImageNet weights: a table of key patterns, checked to the last key.

Sources are a Hugging Face Hub repository (`timm/resnet50.tv_in1k`) or a local `.safetensors` file
with torchvision's key names. No PyTorch, no pickle.
"""

import logging
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from fgjax.errors import UserError

log = logging.getLogger(__name__)

# torchvision's ResNet key -> our path. The last group says how the array is laid out.
_LEAVES = {
    "conv": {"weight": "kernel", "bias": "bias"},
    "bn": {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    "linear": {"weight": "kernel", "bias": "bias"},
}
_RESNET_PATTERNS = (
    (r"conv1\.(?P<leaf>\w+)", ("conv1",), "conv"),
    (r"bn1\.(?P<leaf>\w+)", ("bn1",), "bn"),
    (r"layer(?P<stage>\d)\.(?P<block>\d+)\.(?P<name>conv\d)\.(?P<leaf>\w+)", None, "conv"),
    (r"layer(?P<stage>\d)\.(?P<block>\d+)\.(?P<name>bn\d)\.(?P<leaf>\w+)", None, "bn"),
    (r"layer(?P<stage>\d)\.(?P<block>\d+)\.downsample\.(?P<slot>0)\.(?P<leaf>\w+)", None, "conv"),
    (r"layer(?P<stage>\d)\.(?P<block>\d+)\.downsample\.(?P<slot>1)\.(?P<leaf>\w+)", None, "bn"),
    (r"fc\.(?P<leaf>\w+)", ("fc",), "linear"),
)
_IGNORED = re.compile(r".*num_batches_tracked$")


def _target(key: str) -> tuple[tuple, str] | None:
    for pattern, prefix, kind in _RESNET_PATTERNS:
        match = re.fullmatch(pattern, key)
        if match and match["leaf"] in _LEAVES[kind]:
            groups = match.groupdict()
            if prefix is None:
                prefix = ("stages", int(groups["stage"]) - 1, int(groups["block"]))
                slot = ("downsample", int(groups["slot"])) if "slot" in groups else None
                prefix += slot or (groups["name"],)
            return (*prefix, _LEAVES[kind][match["leaf"]]), kind
    return None


def _transform(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "conv" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # OIHW to HWIO
    if kind == "linear" and array.ndim == 2:
        return array.T
    return array


def resolve(source: str) -> pathlib.Path:
    """Path of the weights file: a local `.safetensors`, or one fetched from the Hub and cached.

    Raises:
      UserError: the file is missing, is a pickle, or the Hub cannot be reached.
    """
    path = pathlib.Path(source).expanduser()
    if path.suffix in (".pth", ".pt", ".bin"):
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
        return pathlib.Path(huggingface_hub.hf_hub_download(source, "model.safetensors"))
    except (OSError, hub_errors.HfHubHTTPError, hub_errors.HFValidationError, ValueError) as error:
        offline = isinstance(error, hub_errors.LocalEntryNotFoundError)
        reason = "the Hub cannot be reached" if offline else str(error).strip().split("\n")[0]
        raise UserError(
            f"the ImageNet weights {source} are not cached and could not be downloaded ({reason}); "
            "give a local file with --config.pretrained=FILE.safetensors, or train from scratch "
            "with --config.pretrained=''."
        ) from error


def load_pretrained(model: nnx.Module, source: str) -> list[str]:
    """Fill a backbone with pretrained weights, in place.

    The classifier head is left as it is when the number of classes differs.

    Args:
      model: a module made by `fgjax.models.build`.
      source: Hub repository or local `.safetensors` file with torchvision's keys.

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
    wanted = dict(nnx.to_flat_state(state))
    problems, filled, notes = [], {}, []
    for key, array in arrays.items():
        if _IGNORED.match(key):
            continue
        found = _target(key)
        if found is None or found[0] not in wanted:
            problems.append(f"unmapped key {key}")
            continue
        target, kind = found
        original, array = array.shape, _transform(array, kind)
        shape = wanted[target][...].shape
        if array.shape != shape:
            if target[0] == "fc":
                notes.append(f"{key} {original} is replaced by a new head {shape}")
            else:
                problems.append(f"{key} has shape {original}, which does not fit {shape}")
            filled[target] = wanted[target][...]
            continue
        filled[target] = jnp.asarray(array, jnp.float32)
    for target in wanted:
        if target not in filled and target[0] != "fc":
            problems.append(f"nothing fills {'.'.join(map(str, target))}")
    if problems:
        shown = "; ".join(problems[:12]) + ("; …" if len(problems) > 12 else "")
        raise UserError(
            f"{path} does not fit this backbone, {len(problems)} keys differ: {shown}. "
            "Choose the --config.backbone that the file was made for."
        )
    for target, value in filled.items():
        wanted[target][...] = jax.numpy.asarray(value)
    for note in notes:
        log.info("pretrained weights: %s", note)
    return notes

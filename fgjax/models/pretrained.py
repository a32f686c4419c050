"""Pretrained weights: a file's arrays into a backbone, checked to the last key.

`weight_keys` has the table of key patterns for each family.
"""

import logging
import re
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax.errors import UserError
from fgjax.models import sources
from fgjax.models.backbone import Backbone
from fgjax.models.efficientnet import EfficientNet
from fgjax.models.weight_keys import IGNORED, LEAVES, RULES, Path, Rule

log = logging.getLogger(__name__)


def _turned(array: np.ndarray, leaf: str | int, dimensions: int) -> np.ndarray:
    """PyTorch's axes to ours: OIHW to HWIO, [out, in] to [in, out], a grid of weights to rows."""
    if leaf != "kernel":
        return array
    if array.ndim == 4:
        turned = array.transpose(2, 3, 1, 0)
        return turned if dimensions == 4 else turned.reshape(-1, turned.shape[-1])
    return array.T


def load_pretrained(model: Backbone, source: str) -> list[str]:
    """Fill a backbone with pretrained weights, in place.

    The classifier head is left as it is when its size differs.

    Args:
      model: a module made by `fgjax.models.build`.
      source: as `resolve` takes it.

    Returns:
      Notes for the log, such as that the head was replaced.

    Raises:
      UserError: the weights are not to be had, or no family of that class is known; or a list of
        every unmapped key, wrong shape and unfilled parameter.
    """
    if type(model) not in RULES:
        raise UserError(
            f"no pretrained weights are known for {type(model).__name__}: say "
            "--config.pretrained='', and fill a backbone of your own where it is made."
        )
    if type(model) is EfficientNet and source.startswith("timm/efficientnet_"):
        raise UserError(
            f"the weights {source} were trained with PyTorch's padding, which is another network: "
            f"take --config.pretrained={source.replace('/', '/tf_', 1).partition('.')[0]}.in1k."
        )
    path = sources.resolve(source)
    arrays = sources.read(path)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    wanted = cast(dict[Path, Any], dict(nnx.to_flat_state(state)))
    shapes = {target: variable.get_value().shape for target, variable in wanted.items()}
    filled, notes, problems = _match(arrays, RULES[type(model)](model), shapes)
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
        if word in IGNORED:
            continue
        found = next(((r, m) for r in rules if (m := re.fullmatch(r.pattern, module))), None)
        if found is None:
            problems.append(f"unmapped key {key}")
            continue
        rule, match = found
        if rule.path is None:
            notes[rule.note] = None
            continue
        for target, piece in _pieces(rule, rule.path(match), word, array, shapes):
            if target is None:
                problems.append(f"unmapped key {key}")
            elif target in filled or target in replaced:
                problems.append(f"key {key} fills {_dotted(target)} a second time")
            elif piece.shape == shapes[target]:
                filled[target] = piece
            elif target[0] == "fc":
                replaced[target] = array.shape
            else:
                problems.append(
                    f"{key} has shape {array.shape}, which does not fit {shapes[target]} here"
                )
    ours = shapes["fc", "kernel"]
    if replaced:  # half a head is of no use
        for target in [t for t in filled if t[0] == "fc"]:
            replaced[target] = filled.pop(target).shape
        sizes = " and ".join(str(shape) for shape in replaced.values())
        notes[f"the file's classifier {sizes} is replaced by a new head {ours}"] = None
    headless = not any(target[0] == "fc" for target in (*filled, *replaced))
    if headless:
        notes[f"the file has no classifier: a new head {ours} stands in its place"] = None
    for target in shapes:
        if target not in filled and target not in replaced and not (headless and target[0] == "fc"):
            problems.append(f"nothing fills {_dotted(target)}")
    return filled, list(notes), problems


def _pieces(rule: Rule, module: Path, word: str, array: np.ndarray, shapes: dict[Path, tuple]):
    """(target or None, array with its axes as ours) for all that a key holds."""
    array = rule.reshape(array) if rule.reshape else array
    whole = not rule.split or len(array) % len(rule.split)
    modules = [module] if whole else [(*module, name) for name in rule.split]
    for one, piece in zip(modules, np.split(array, len(modules)) if len(modules) > 1 else [array]):
        target = _target(one, word, shapes)
        yield target, piece if target is None else _turned(piece, target[-1], len(shapes[target]))


def _target(module: Path, word: str, shapes: dict[Path, tuple]) -> Path | None:
    for leaf in LEAVES.get(word, ()):
        if (*module, leaf) in shapes:
            return (*module, leaf)
    return None


def _dotted(target: Path) -> str:
    return ".".join(map(str, target))

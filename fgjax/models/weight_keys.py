"""Which key of a weights file is which of our arrays: a table of patterns for each family.

Files have the key names of torchvision, timm, Hugging Face's transformers or
efficientnet_lite_pytorch.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

from fgjax.models import convnext, densenet, efficientnet, inception, resnet, vgg, vit
from fgjax.models.backbone import Backbone

Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where the arrays of a torchvision module go.

    Attributes:
      pattern: of the key without its last word (`weight`, `running_mean` …).
      path: from the match to our module's path; None leaves the keys out.
      reshape: applied to an array before its axes are turned to ours.
      note: for the log, where keys are left out.
      split: names of modules of ours below the path, whose arrays lie one above the other in this.
    """

    pattern: str
    path: Callable[[re.Match], Path] | None
    reshape: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""
    split: tuple[str, ...] = ()


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
# timm's names of a block's layers; the first group's blocks do not expand.
_TIMM_B0 = {"conv_pw": "expand_conv", "bn1": "bn0", "conv_dw": "depthwise_conv", "bn2": "bn1",
            "conv_pwl": "project_conv", "bn3": "bn2"}  # fmt: skip
_TIMM_B0_FIRST = {"conv_dw": "depthwise_conv", "bn1": "bn1", "conv_pw": "project_conv",
                  "bn2": "bn2"}  # fmt: skip


def _efficientnet_b0(model: efficientnet.EfficientNet) -> tuple[Rule, ...]:
    """Blocks are counted by their groups in timm, and one after another in transformers."""
    del model
    first = np.cumsum([0, *(group.repeats for group in efficientnet.GROUPS)])

    def block(m: re.Match) -> Path:
        names = _TIMM_B0 if int(m[1]) else _TIMM_B0_FIRST
        return "blocks", int(first[int(m[1])]) + int(m[2]), names.get(m[3], "absent")

    own = {"convolution": "conv_stem", "batchnorm": "bn0", "top_conv": "conv_head", "top_bn": "bn1",
           "expand_bn": "bn0", "depthwise_norm": "bn1", "project_bn": "bn2"}  # fmt: skip
    name = lambda word: own.get(str(word), str(word))  # noqa: E731
    timm = (
        Rule(r"(conv_stem|conv_head)", lambda m: (m[1],)),
        Rule(r"bn([12])", lambda m: (f"bn{int(m[1]) - 1}",)),
        Rule(r"blocks\.([0-6])\.(\d)\.(\w+)", block),
        Rule(r"blocks\.([0-6])\.(\d)\.se\.conv_(reduce|expand)",
             lambda m: ("blocks", int(first[int(m[1])]) + int(m[2]), "excitation", m[3])),
    )  # fmt: skip
    transformers = (
        Rule(r"efficientnet\.(?:embeddings|encoder)\.(\w+)", lambda m: (name(m[1]),)),
        Rule(r"efficientnet\.encoder\.blocks\.(\d+)\.squeeze_excite\.(\w+)",
             lambda m: ("blocks", int(m[1]), "excitation", m[2])),
        Rule(r"efficientnet\.encoder\.blocks\.(\d+)\.\w+\.(\w+)",
             lambda m: ("blocks", int(m[1]), name(m[2]))),
    )  # fmt: skip
    return (*timm, *transformers, _CLASSIFIER)


def _convnext_block(match: re.Match, *names: str) -> Path:
    return "stages", int(match[1]), int(match[2]), *names


_CLASSIFIER = Rule(r"(?:head\.fc|head|classifier)", lambda m: ("fc",))
_CONVNEXT_BLOCK = {
    "conv_dw": "depthwise", "norm": "norm", "mlp.fc1": "expand", "mlp.fc2": "project",
    "dwconv": "depthwise", "layernorm": "norm", "pwconv1": "expand", "pwconv2": "project",
}  # fmt: skip
_CONVNEXT = (  # timm's and transformers'
    Rule(r"stem\.0|convnext\.embeddings\.patch_embeddings", lambda m: ("stem",)),
    Rule(r"stem\.1|convnext\.embeddings\.layernorm", lambda m: ("stem_norm",)),
    Rule(r"(?:convnext\.encoder\.)?stages\.(\d)\.downsampl(?:e|ing_layer)\.([01])",
         lambda m: ("downsamplings", int(m[1]) - 1, ("norm", "conv")[int(m[2])])),
    Rule(r"(?:convnext\.encoder\.)?stages\.(\d)\.(?:blocks|layers)\.(\d+)",
         lambda m: _convnext_block(m, "scale")),
    Rule(r"(?:convnext\.encoder\.)?stages\.(\d)\.(?:blocks|layers)\.(\d+)\.([\w.]+)",
         lambda m: _convnext_block(m, _CONVNEXT_BLOCK.get(m[3], "absent"))),
    Rule(r"head\.norm|convnext\.layernorm", lambda m: ("norm",)),
    _CLASSIFIER,
)  # fmt: skip


def _vit_block(match: re.Match, *names: str) -> Path:
    return "blocks", int(match[1]), *names


def _with_class_position(array: np.ndarray) -> np.ndarray:
    """With the class token's position, which timm adds to the token where there are registers."""
    patches = vit.GRID**2
    alone = array.ndim == 3 and array.shape[1] == patches
    return np.pad(array, [(0, 0), (1, 0), (0, 0)]) if alone else array


_QKV = {"q": "query", "k": "key", "v": "value"}
_HF = r"(?:dinov2(?:_with_registers)?\.)?"  # the name of the model inside a classifier
_HF_LAYER = _HF + r"encoder\.layer\.(\d+)\."
_VIT = (
    # transformers'; its version 5 says q_proj and o_proj
    Rule(_HF + r"embeddings", lambda m: ("embeddings",)),
    Rule(_HF + r"embeddings\.patch_embeddings\.projection", lambda m: ("embeddings", "projection")),
    Rule(_HF_LAYER + r"(norm[12])", lambda m: _vit_block(m, m[2])),
    Rule(_HF_LAYER + r"attention\.attention\.(query|key|value)",
         lambda m: _vit_block(m, "attention", m[2])),
    Rule(_HF_LAYER + r"attention\.([qkv])_proj",
         lambda m: _vit_block(m, "attention", _QKV[m[2]])),
    Rule(_HF_LAYER + r"attention\.(?:output\.dense|o_proj)",
         lambda m: _vit_block(m, "attention", "out")),
    Rule(_HF_LAYER + r"layer_scale([12])", lambda m: _vit_block(m, f"scale{m[2]}")),
    Rule(_HF_LAYER + r"mlp\.(fc[12])", lambda m: _vit_block(m, "mlp", m[2])),
    Rule(_HF + r"layernorm", lambda m: ("norm",)),
    # timm's, and those of DINOv2's repository
    Rule(r"", lambda m: ("embeddings",), reshape=_with_class_position),
    Rule(r"patch_embed\.proj", lambda m: ("embeddings", "projection")),
    Rule(r"blocks\.(\d+)\.(norm[12])", lambda m: _vit_block(m, m[2])),
    Rule(r"blocks\.(\d+)\.attn\.qkv", lambda m: _vit_block(m, "attention"),
         split=tuple(_QKV.values())),
    Rule(r"blocks\.(\d+)\.attn\.proj", lambda m: _vit_block(m, "attention", "out")),
    Rule(r"blocks\.(\d+)\.ls([12])", lambda m: _vit_block(m, f"scale{m[2]}")),
    Rule(r"blocks\.(\d+)\.mlp\.(fc[12])", lambda m: _vit_block(m, "mlp", m[2])),
    Rule(r"norm", lambda m: ("norm",)),
    _CLASSIFIER,
)  # fmt: skip


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
    rows = (math.prod(grid),)
    to_grid = lambda w: w.reshape(-1, *grid) if w.shape[1:] == rows else w  # noqa: E731
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


RULES: dict[type[Backbone], Callable[..., tuple[Rule, ...]]] = {
    resnet.ResNet: lambda model: _RESNET,
    vgg.VGG: _vgg,
    densenet.DenseNet: lambda model: _DENSENET,
    inception.Inception: lambda model: _INCEPTION,
    efficientnet.EfficientNetLite: lambda model: _EFFICIENTNET,
    efficientnet.EfficientNet: _efficientnet_b0,
    convnext.ConvNeXt: lambda model: _CONVNEXT,
    vit.VisionTransformer: lambda model: _VIT,
}
# A key's last word to the names of ours that it may have.
LEAVES = {
    "weight": ("kernel", "scale"), "bias": ("bias",),
    "running_mean": ("mean",), "running_var": ("var",),
    **dict.fromkeys(("gamma", "lambda1", "layer_scale_parameter"), ("gamma",)),
    "cls_token": ("cls_token",),
    **dict.fromkeys(("register_tokens", "reg_token"), ("register_tokens",)),
    **dict.fromkeys(("position_embeddings", "pos_embed"), ("position_embeddings",)),
}  # fmt: skip
# Words of keys that nothing here needs: a count, and the token of hidden patches.
IGNORED = ("num_batches_tracked", "mask_token")

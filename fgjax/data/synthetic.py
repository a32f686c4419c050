"""Synthetic aircraft: a deterministic renderer of fine-grained side views.

24 variants stand in 6 families of 4. A family fixes the fuselage and the wing; inside it the
`base` variant differs from each sister in exactly one part: the nose, the engines on the wing, or
the tail. Everything else is nuisance that carries no label: sky, ground, pose, scale, position,
light, livery, clutter, partial occlusion and JPEG strength.

An image depends on (seed, split, class, index) alone. It is drawn at twice its size with sub-pixel
anti-aliased polygons and reduced by area. Noses point to the left, so that left and right of an
image mean the same part in all of them. Boxes are (ymin, xmin, ymax, xmax) in [0, 1].
"""

import dataclasses
import functools
import itertools

import cv2
import numpy as np

PARTS = ("nose", "wing", "tail")
VARIANTS_PER_FAMILY = ("base", "nose", "engines", "tail")


@dataclasses.dataclass(frozen=True)
class Design:
    """The shape of one variant, in lengths relative to half the fuselage."""

    family: int
    radius: float  # half height of the fuselage
    wing_root: float  # where the wing's leading edge meets the fuselage; nose -1, tail +1
    sweep: float  # how far the wing tip lies behind the root
    chord: float
    nose: str  # pointed | round | droop | hump
    engines: int  # 0: none, 1 or 2 under the wing
    tail: str  # swept | upright | t | twin


_FAMILIES = (
    Design(0, 0.125, -0.22, 0.50, 0.34, "round", 1, "swept"),
    Design(1, 0.165, -0.10, 0.30, 0.40, "round", 2, "upright"),
    Design(2, 0.105, 0.00, 0.42, 0.28, "pointed", 1, "t"),
    Design(3, 0.150, -0.30, 0.16, 0.32, "pointed", 2, "swept"),
    Design(4, 0.180, -0.16, 0.52, 0.46, "hump", 2, "t"),
    Design(5, 0.120, -0.36, 0.36, 0.42, "droop", 1, "upright"),
)
_OTHER_NOSE = ("hump", "droop", "round", "hump", "round", "pointed")
_OTHER_ENGINES = (2, 1, 2, 0, 1, 0)
_OTHER_TAIL = ("t", "swept", "twin", "upright", "upright", "twin")


@functools.cache
def designs(variants: int = 4) -> tuple[Design, ...]:
    """Family by family: base first, then the one-part sisters, then further combinations of parts.

    Args:
      variants: of each family, 4 to 48.
    """
    result: list[Design] = []
    for base, nose, engines, tail in zip(_FAMILIES, _OTHER_NOSE, _OTHER_ENGINES, _OTHER_TAIL):
        family = [
            base,
            dataclasses.replace(base, nose=nose),
            dataclasses.replace(base, engines=engines),
            dataclasses.replace(base, tail=tail),
        ]
        rest = [
            dataclasses.replace(base, nose=n, engines=e, tail=t)
            for n, e, t in itertools.product(_NOSES, (0, 1, 2), _TAILS)
        ]
        order = np.random.default_rng(base.family).permutation(len(rest))
        family += [rest[i] for i in order if rest[i] not in family]
        result += family[:variants]
    return tuple(result)


def class_names(variants: int = 4) -> list[str]:
    """Names such as `F0-base`, `F3-tail` or, beyond the sisters, `F3-hump-2-t`, in label order."""
    named = VARIANTS_PER_FAMILY
    return [
        f"F{d.family}-{named[i]}"
        if i < len(named)
        else f"F{d.family}-{d.nose}-{d.engines}-{d.tail}"
        for i, d in ((n % variants, d) for n, d in enumerate(designs(variants)))
    ]


def deciding_part(label: int, other: int) -> int | None:
    """Index in PARTS of the one part in which two variants differ; None if more than one does."""
    one, two = designs()[label], designs()[other]
    if one.family != two.family:
        return None
    different = [one.nose != two.nose, one.engines != two.engines, one.tail != two.tail]
    return different.index(True) if sum(different) == 1 else None


# Outlines, in the aircraft's own frame: x from -1 (nose) to +1 (tail), y upwards.

_NOSES = {
    "pointed": [(-0.66, 1.0), (-0.80, 0.72), (-0.95, 0.28), (-1.10, 0.0), (-0.92, -0.42),
                (-0.76, -0.84), (-0.66, -1.0)],
    "round": [(-0.66, 1.0), (-0.80, 0.98), (-0.92, 0.72), (-0.98, 0.2), (-0.97, -0.4),
              (-0.88, -0.86), (-0.66, -1.0)],
    "droop": [(-0.66, 1.0), (-0.78, 0.80), (-0.88, 0.30), (-0.98, -0.50), (-1.07, -1.25),
              (-0.90, -1.15), (-0.66, -1.0)],
    "hump": [(-0.46, 1.0), (-0.56, 1.55), (-0.74, 1.62), (-0.86, 1.15), (-0.95, 0.35),
             (-0.99, -0.25), (-0.88, -0.86), (-0.66, -1.0)],
}  # fmt: skip


_TAILS = ("swept", "upright", "t", "twin")


def _tail(kind: str, radius: float) -> list[np.ndarray]:
    if kind == "swept":
        fin = [(0.52, radius), (0.86, 0.50), (1.04, 0.50), (0.90, radius * 0.6)]
        plane = [(0.66, 0.08), (1.04, 0.02), (1.14, -0.05), (0.86, 0.0)]
        return [np.array(fin), np.array(plane)]
    if kind == "upright":
        fin = [(0.60, radius), (0.66, 0.40), (0.90, 0.43), (0.92, radius * 0.6)]
        plane = [(0.66, 0.08), (1.04, 0.02), (1.14, -0.05), (0.86, 0.0)]
        return [np.array(fin), np.array(plane)]
    if kind == "t":
        fin = [(0.56, radius), (0.78, 0.46), (0.96, 0.46), (0.92, radius * 0.6)]
        plane = [(0.64, 0.45), (0.74, 0.53), (1.12, 0.53), (1.22, 0.45)]
        return [np.array(fin), np.array(plane)]
    fin = [(0.56, radius), (0.64, 0.34), (0.78, 0.34), (0.74, radius * 0.7)]
    fin_two = [(0.82, radius * 0.7), (0.92, 0.34), (1.06, 0.34), (0.98, radius * 0.5)]
    return [np.array(fin), np.array(fin_two)]


def _ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def _outlines(design: Design) -> dict[str, list[np.ndarray]]:
    """Polygons by name: fuselage, nose, wing, engines, tail."""
    radius = design.radius
    nose = np.array([(x, y * radius) for x, y in _NOSES[design.nose]])
    body = np.array([(-0.67, radius), (0.50, radius), (0.80, radius * 0.92), (1.0, radius * 0.55),
                     (1.0, radius * 0.25), (0.72, -radius * 0.35), (0.42, -radius),
                     (-0.67, -radius)])  # fmt: skip
    root, sweep, chord = design.wing_root, design.sweep, design.chord
    drop = -0.36  # the near wing comes towards the camera, so its tip is drawn lower
    wing = np.array([(root, -radius * 0.35), (root + chord, -radius * 0.45),
                     (root + sweep + chord * 0.45, drop), (root + sweep, drop)])  # fmt: skip
    engines = []
    if design.engines >= 1:
        engines.append(_ellipse(root + sweep * 0.25 - 0.05, -radius * 0.5 - 0.14, 0.095, 0.05))
    if design.engines >= 2:
        engines.append(_ellipse(root + sweep * 0.68 - 0.05, -radius * 0.5 - 0.25, 0.085, 0.045))
    return {"fuselage": [body], "nose": [nose], "wing": [wing], "engines": engines,
            "tail": _tail(design.tail, radius)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Nuisance:
    """How much of what carries no label; 1 is the built-in data's strength."""

    pose: float = 1.0
    light: float = 1.0
    clutter: float = 1.0
    occlusion: float = 1.0


_SHIFT = 4  # fractional bits of cv2's fixed-point coordinates


def _fill(canvas: np.ndarray, points: np.ndarray, color: np.ndarray) -> None:
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], color.tolist(), cv2.LINE_AA, _SHIFT)


def _sky(rng: np.random.Generator, size: int) -> np.ndarray:
    top = rng.uniform(20, 110, 3) + np.array([-10, 0, 30])
    bottom = top + rng.uniform(-20, 70, 3)
    ramp = np.linspace(0, 1, size)[:, None, None]
    canvas = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (size, size, 3))
    return np.ascontiguousarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _clutter(canvas: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    size = canvas.shape[0]
    for _ in range(rng.poisson(5 * strength)):  # clouds and smoke behind the aircraft
        center = rng.uniform(0, size, 2)
        axes = rng.uniform(0.04, 0.20, 2) * size * np.array([1.6, 0.7])
        color = np.clip(canvas[int(center[1]) % size, 0] + rng.uniform(-25, 55), 0, 255)
        cv2.ellipse(canvas, tuple(map(int, center)), tuple(map(int, axes)),
                    rng.uniform(-25, 25), 0, 360, color.tolist(), -1, cv2.LINE_AA)  # fmt: skip
    if rng.uniform() < 0.6 * strength:  # ground with buildings
        horizon = rng.uniform(0.72, 0.95) * size
        ground = rng.uniform(30, 120, 3)
        cv2.rectangle(canvas, (0, int(horizon)), (size, size), ground.tolist(), -1)
        for _ in range(rng.poisson(4 * strength)):
            x, width = rng.uniform(0, size), rng.uniform(0.03, 0.15) * size
            top = horizon - rng.uniform(0.02, 0.12) * size
            color = np.clip(ground + rng.uniform(-40, 60, 3), 0, 255)
            cv2.rectangle(canvas, (int(x), int(top)), (int(x + width), int(horizon)),
                          color.tolist(), -1)  # fmt: skip


def _occlude(canvas: np.ndarray, box: np.ndarray, rng: np.random.Generator, strength: float):
    size = canvas.shape[0]
    for _ in range(rng.poisson(2.4 * strength)):  # poles, birds, vehicles in front
        y, x = rng.uniform(box[0], box[2]) * size, rng.uniform(box[1], box[3]) * size
        color = rng.uniform(10, 130, 3).tolist()
        if rng.uniform() < 0.5:
            half = rng.uniform(0.006, 0.016) * size
            pole = [(x - half, y), (x + half, y), (x + half, size), (x - half, size)]
            _fill(canvas, np.array(pole), np.array(color))
        else:
            _fill(canvas, _ellipse(x, y, *(rng.uniform(0.02, 0.065, 2) * size)), np.array(color))


def _bounds(polygons: list[np.ndarray], size: int) -> np.ndarray:
    points = np.concatenate(polygons)
    (xmin, ymin), (xmax, ymax) = points.min(0), points.max(0)
    return np.clip(np.array([ymin, xmin, ymax, xmax]) / size, 0, 1).astype(np.float32)


def render(
    label: int,
    index: int,
    *,
    seed: int = 0,
    split: str = "train",
    size: int = 128,
    nuisance: Nuisance | None = None,
    variants: int = 4,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one aircraft.

    Args:
      label: variant, in the order of `class_names`.
      index: running number of the image in its class.
      seed: of the whole data set.
      split: "train" or "test"; other strings give further, disjoint draws.
      size: height and width in pixels.
      nuisance: strength of what carries no label.
      variants: of each family, as in `designs`.

    Returns:
      image uint8 [size, size, 3] (RGB), object box [4], part boxes [3, 4] in the order of PARTS.
    """
    nuisance = nuisance or Nuisance()
    split_id = int.from_bytes(split.encode(), "little")
    rng = np.random.default_rng([seed, split_id, label, index])
    design = designs(variants)[label]
    canvas_size = 2 * size
    canvas = _sky(rng, canvas_size)
    _clutter(canvas, rng, nuisance.clutter)

    outlines = _outlines(design)
    half_length = rng.uniform(0.27, 0.385) * canvas_size
    stretch = 1.5 * rng.uniform(0.92, 1.08)
    angle = np.deg2rad(rng.uniform(-12, 12)) * nuisance.pose
    shear = rng.uniform(-0.2, 0.2) * nuisance.pose
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.diag([half_length, -half_length * stretch])
    linear = linear @ np.array([[1, shear], [0, 1]]) @ shape
    turned = {name: [p @ linear.T for p in polygons] for name, polygons in outlines.items()}
    every = np.concatenate([p for polygons in turned.values() for p in polygons])
    low, high = every.min(0), every.max(0)
    free = canvas_size - (high - low)
    offset = -low + free * rng.uniform(0.5 - 0.48 * nuisance.pose, 0.5 + 0.48 * nuisance.pose, 2)
    placed = {name: [p + offset for p in polygons] for name, polygons in turned.items()}

    light = rng.uniform(0.78, 1.08) ** nuisance.light
    body = np.clip(rng.uniform(200, 250) * light + rng.uniform(-12, 12, 3), 0, 255)
    livery, belly, stripe = rng.uniform(20, 240, (3, 3)) * light
    wing = body * rng.uniform(0.62, 0.8)
    _fill(canvas, placed["tail"][0], livery)
    _fill(canvas, placed["fuselage"][0], body)
    _fill(canvas, placed["nose"][0], body)
    for polygon in placed["tail"][1:]:
        _fill(canvas, polygon, livery if design.tail == "twin" else wing)
    radius = design.radius
    frame = lambda points: np.array(points) @ linear.T + offset  # noqa: E731
    if rng.uniform() < 0.5:
        _fill(canvas, frame([(-0.66, -radius * 0.45), (0.5, -radius * 0.45), (0.42, -radius),
                             (-0.66, -radius)]), belly)  # fmt: skip
    if rng.uniform() < 0.7:
        _fill(canvas, frame([(-0.66, radius * 0.2), (0.9, radius * 0.5), (0.9, radius * 0.3),
                             (-0.66, -radius * 0.05)]), stripe)  # fmt: skip
    for x in np.arange(-0.55, 0.6, rng.uniform(0.07, 0.11)):  # windows
        _fill(canvas, frame(_ellipse(x, radius * 0.45, 0.012, radius * 0.12)), body * 0.35)
    _fill(canvas, placed["wing"][0], wing)
    cowling = body * rng.uniform(0.4, 0.85)
    for polygon in placed["engines"]:
        _fill(canvas, polygon, cowling * 0.45)  # a dark rim keeps them apart from wing and sky
        _fill(canvas, polygon.mean(0) + 0.72 * (polygon - polygon.mean(0)), cowling)

    parts = np.stack([_bounds(placed["nose"], canvas_size),
                      _bounds(placed["wing"] + placed["engines"], canvas_size),
                      _bounds(placed["tail"], canvas_size)])  # fmt: skip
    box = _bounds([p for polygons in placed.values() for p in polygons], canvas_size)
    _occlude(canvas, box, rng, nuisance.occlusion)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    gain = 1 + rng.uniform(-0.25, 0.25) * nuisance.light
    noise = rng.normal(0, 10 * nuisance.light, image.shape)
    image = np.clip(image * gain + rng.uniform(-15, 15) * nuisance.light + noise, 0, 255)
    return image.astype(np.uint8), box, parts


def encode(
    image: np.ndarray, label: int, index: int, *, seed: int = 0, split: str = "train"
) -> bytes:
    """JPEG bytes, with a strength that depends on the image alone."""
    rng = np.random.default_rng([seed, 7, label, index, len(split)])
    quality = int(rng.integers(50, 93))
    done, buffer = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return buffer.tobytes()

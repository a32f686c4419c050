"""Rows that train on few images of each class."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from fgjax.config import Row, Study

SHOTS = (5, 10, 20)
_EACH = 27  # images of a class that CUB trains on, where a tenth is held out


def of_few(
    shots: int, loops: Sequence[str], factors: dict[str, int] | None = None
) -> dict[str, Any]:
    """Overrides: so many images of each class, and as many steps as with all of CUB's.

    `loops`: the method's fields that count passes; `factors`: of some, how many times as many.
    """

    def passes(name: str) -> Callable[[Any], int]:
        many = (factors or {}).get(name, 1)
        return lambda config: math.ceil(many * _get(config.method, name) * _EACH / shots)

    return {"data.shots": shots, **{f"method.{name}": passes(name) for name in loops}}


def few_shot(name: str, loops: Sequence[str], *before: Row, **options: Any) -> Study:
    """A method's accuracy against the images of each class; options as of `Study`."""
    rows = (*before, *(Row(f"{name}, {n}", of_few(n, loops)) for n in SHOTS))
    return Study(
        "Images of each class, as many steps",
        "not in the paper",
        rows,
        also=("mean_class_accuracy",),
        **options,
    )


def _get(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = getattr(value, part)
    return value

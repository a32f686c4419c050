"""What a field of the config may be, said beside it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

_NOTHING = dataclasses.MISSING
LARGEST = 2**53  # whole numbers up to here are floats, too; above it nothing is a setting


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; the ends belong to it unless they are open.

    Attributes:
      low: −∞ where there is none.
      high: ∞ where there is none.
      open_low: whether `low` itself is out.
      open_high: whether `high` itself is out.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        if not -LARGEST <= value <= LARGEST:  # nor is NaN
            return False
        least = value > self.low if self.open_low else value >= self.low
        most = value < self.high if self.open_high else value <= self.high
        return least and most

    def __str__(self) -> str:
        low, high = f"{self.low:g}", f"{self.high:.10g}"
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a number of reasonable size"
            if self.open_low:
                return "positive" if self.low == 0 else f"above {low}"
            return f"{low} or more"
        first = f"above {low}" if self.open_low else f"at least {low}"
        return f"{first} and {'below' if self.open_high else 'at most'} {high}"


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of a few words."""

    words: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


def among(default: str, *others: str, before: Any = _NOTHING) -> Any:
    """A field that is one of a few words.

    Args:
      default: of the field, and the first of the words.
      others: further words.
      before: as of `config.added`.
    """
    return _field(default, Choices((default, *others)), before)


def within(
    default: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    before: Any = _NOTHING,
) -> Any:
    """A field with its range; a tuple has it for each of its numbers, and at least one.

    Args:
      default: of the field.
      low: the least number.
      high: the largest.
      above: `low` itself is out.
      below: `high` itself is out.
      before: as of `config.added`.
    """
    return _field(default, Range(low, high, above, below), before)


def _field(default: Any, allowed: Range | Choices, before: Any) -> Any:
    metadata: dict[str, Any] = {"range": allowed}
    if before is not _NOTHING:
        metadata["before"] = before
    return dataclasses.field(default=default, metadata=metadata)


def outside(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, what it may be) of the fields of a dataclass that are out of range.

    A number without a range must be finite and none beyond `LARGEST`.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from outside(value, f"{name}.")
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        allowed = field.metadata.get("range", Range() if number else None)
        if allowed is None:
            continue
        values = value if isinstance(value, tuple) else (value,)
        if not values or any(each not in allowed for each in values):
            each = "one or more, each " if isinstance(value, tuple) else ""
            yield name, value, f"{each}{allowed}"

"""How a method's folder tells where everything of its paper stands."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Equation:
    """An equation beside the code that is it.

    Attributes:
      number: as the paper counts.
      latex: in the names that the code uses.
      what: one line of what it is for.
      code: the functions or classes that compute it; the first one above all.
    """

    number: str
    latex: str
    what: str
    code: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """A section, figure or table, and where it is made.

    Attributes:
      number: such as "3.1", "Fig. 4", "Table 3".
      what: one line.
      code: functions or classes; for a table, a study by its name.
    """

    number: str
    what: str
    code: tuple[Callable[..., Any] | str, ...]


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper as the folder of its method keeps it."""

    title: str
    authors: str
    equations: tuple[Equation, ...]
    sections: tuple[Place, ...]
    figures: tuple[Place, ...]
    tables: tuple[Place, ...]

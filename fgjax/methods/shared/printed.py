"""Numbers that a paper prints, as data: `numbers.csv` in the folder of its method."""

import csv
import dataclasses
import functools
import importlib.resources
from typing import Any

from fgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Printed:
    """One cell of a table.

    Attributes:
      table: such as "Table 1", or the section where the text has it.
      method: as the paper calls it; "" where a table describes datasets.
      setting: what tells a row from others of the method, such as "K̂ = 10".
      reference: the number in the paper's list of whom it quotes; "" for its own.
      year: of that reference, where the list has one.
      backbone: as `models.build` names it, in the paper's word where there is none; "" where the
        paper says nothing. An ablation without one has that of the table that shares its best row.
      dataset: as configs name it.
      measure: as results.json names it, in per cent; else a count or milliseconds.
      value: as printed.
      note: where the print is likely wrong, why.
    """

    table: str
    method: str
    setting: str
    reference: str
    year: str
    backbone: str
    dataset: str
    measure: str
    value: str
    note: str = ""

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)

    @property
    def key(self) -> tuple[str, ...]:
        """What no two cells of a paper have in common."""
        return (self.table, self.method, self.setting, self.backbone, self.dataset, self.measure)


# As the papers call them, by their names in configs.
DATASETS = {
    "cub": "CUB-200-2011",
    "cars": "Stanford Cars",
    "fgvc_aircraft": "FGVC-Aircraft",
    "deepfashion": "DeepFashion",
    "dogs": "Stanford Dogs",
    "flowers": "Oxford Flowers",
    "pets": "Oxford Pets",
}
FIELDS = tuple(field.name for field in dataclasses.fields(Printed))


class Numbers(tuple[Printed, ...]):
    """All that a paper prints, in its order."""

    def where(self, **fields: str) -> "Numbers":
        """The cells with these fields, `where(table="Table 1", backbone="vgg16")`."""
        return Numbers(
            cell for cell in self if all(getattr(cell, name) == fields[name] for name in fields)
        )

    def value(self, table: str, *, setting: str = "", **fields: str) -> float:
        """The number of one cell.

        Args:
          table: where it stands.
          setting: of its row.
          fields: as many more as it takes to name one cell.

        Raises:
          UserError: none or several are meant.
        """
        found = self.where(table=table, setting=setting, **fields)
        if len(found) != 1:
            asked = ", ".join([table, *filter(None, [setting]), *fields.values()])
            raise UserError(
                f"numbers.csv has {len(found)} cells for {asked}: name one by method, setting, "
                "backbone, dataset and measure."
            )
        return found[0].number

    def measures(self, table: str, *, setting: str = "", **fields: str) -> dict[str, float]:
        """The numbers of one row and dataset, {measure: number}; empty where there is no such row.

        Raises:
          UserError: several rows are meant.
        """
        found = self.where(table=table, setting=setting, **fields)
        numbers = {cell.measure: cell.number for cell in found}
        if len(numbers) != len(found):
            raise UserError(f"several rows of {table} have {fields}: name one.")
        return numbers

    def tables(self) -> dict[str, "Numbers"]:
        """{table: its cells}."""
        names = dict.fromkeys(cell.table for cell in self)
        return {name: self.where(table=name) for name in names}


@functools.cache
def read(package: str) -> Numbers:
    """The numbers of a method's paper; none where its folder has no `numbers.csv`.

    Args:
      package: of the method, `__package__` in its own modules.

    Raises:
      UserError: the file has other columns, or a value that is no number.
    """
    path = importlib.resources.files(package) / "numbers.csv"
    if not path.is_file():
        return Numbers()
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    if tuple(reader.fieldnames or ()) != FIELDS:
        raise UserError(f"{path}: its columns must be {', '.join(FIELDS)}.")
    return Numbers(_cell(line, f"{path}, line {reader.line_num}") for line in reader)


def _cell(line: dict[str, Any], where: str) -> Printed:
    try:
        cell = Printed(**line)
        float(cell.value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}, is no number of a paper ({error}): mend it.") from error
    return cell

"""A griffe extension: how docstrings are written here, as the reference's generator wants them."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Columns in a module's docstring keep their shape, `>>>` lines show as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class and function."""
        if obj.docstring is None:
            return
        if obj.is_module:
            obj.docstring.value = columns_as_code(obj.docstring.value)
        if "\n>>> " not in f"\n{obj.docstring.value}":
            return
        lines = obj.docstring.value.splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith(">>> "))
        example = (f"    {line}" for line in lines[first:])
        obj.docstring.value = "\n".join([*lines[:first], "Examples:", *example])


def columns_as_code(text: str) -> str:
    """Commands and lines of two spaces as lines of four, which Markdown takes for code."""
    shown = []
    for line in text.splitlines():
        command = line.startswith(("fgjax ", "python "))
        shown.append(f"    {line}" if command else f"  {line}" if line.startswith("  ") else line)
    return "\n".join(shown)

"""Pages from templates: whatever stands in a name, it is text and no markup."""

import functools
import importlib.resources
import pathlib
from typing import Any

import jinja2

TEMPLATES = importlib.resources.files("fgjax.report") / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    def read(name: str) -> str | None:
        file = TEMPLATES / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(read), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def write(path: pathlib.Path, template: str, **values: Any) -> None:
    """Fill a template and put the page where it belongs, whole or not at all."""
    text = _environment().get_template(template).render(**values)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

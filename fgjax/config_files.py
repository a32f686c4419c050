"""List the configs that come with fgjax: their methods and flags, one line each.

fgjax configs
fgjax configs aircraft
"""

import argparse
import importlib.util
import os
import pathlib
import sys
from types import ModuleType

from fgjax import methods
from fgjax.config import Config
from fgjax.errors import UserError
from fgjax.presets import Offer


def folder() -> pathlib.Path:
    """Where the shipped configs lie: in the package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The shipped configs."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def find(name: str) -> tuple[pathlib.Path, str]:
    """File and argument of `aircraft:lapm,demo` or `path/to/aircraft.py:lapm,demo`.

    Raises:
      UserError: there is no such config; lists those that there are.
    """
    word, _, argument = name.partition(":")
    if pathlib.Path(word).is_file():
        return pathlib.Path(word), argument
    if word in names():
        return folder() / f"{word}.py", argument
    what = "file " if word.endswith(".py") else ""
    raise UserError(
        f"the config {what}{word} does not exist: name one of {', '.join(names())}, or the path of "
        "a config file."
    )


def load(name: str) -> Config:
    """The config that a name such as `aircraft:lapm,demo` stands for.

    Raises:
      UserError: there is none, its file has no `get_config`, or its argument does not fit.
    """
    path, argument = find(name)
    get = getattr(_module(path), "get_config", None)
    config = get(argument) if get else None
    if not isinstance(config, Config):
        raise UserError(f"{path} is not a config file: it needs get_config(argument) -> Config.")
    return config


def with_flags(name: str, flags: tuple[str, ...]) -> str:
    """The name of the config that has these flags, too."""
    word, _, argument = name.partition(":")
    words = [one for one in argument.split(",") if one]
    return ":".join([word, ",".join([*words, *(f for f in flags if f not in words)])])


def _module(path: pathlib.Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise UserError(f"{path} is not a config file: its name must end with .py.")
    module = importlib.util.module_from_spec(specification)
    for place in (str(path.absolute().parent), os.getcwd()):  # a config's own methods and helpers
        if place not in sys.path:
            sys.path.append(place)
    try:
        specification.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{path} is not a config file: {error}.") from error
    return module


def offer_of(name: str) -> Offer:
    """What a shipped config offers."""
    return _module(folder() / f"{name}.py").OFFER


def line_of(name: str) -> str:
    """`aircraft   lapm | ccfr …   [,demo]   what it is`."""
    module = _module(folder() / f"{name}.py")
    offer, words = offer_of(name), []
    for method in offer.methods:
        own = [flag for flag in offer.flags(method) if flag != "demo"]
        words.append(method + "".join(f"[,{flag}]" for flag in own))
    listed = " | ".join(words) + ("  [,demo]" if offer.demo else "")
    title = (module.__doc__ or "").splitlines()[0]
    return f"{name:12s} {listed:50s} {title}"


def command(arguments: list[str] | None = None) -> None:
    """`fgjax configs`."""
    parser = argparse.ArgumentParser(
        prog="fgjax configs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="show the words of one config and their meaning")
    options = parser.parse_args(arguments)
    if options.name:
        path, _ = find(options.name)
        print((_module(path).__doc__ or "").strip())
        return
    for name in names():
        print(line_of(name))
    print(
        "\nThe first method is the default; fgjax train --config=NAME[:METHOD[,FLAG…]]."
        f"\nMethods: {', '.join(methods.names())}. [,flag] may be added to the method before it; "
        "demo to any."
    )

"""From a config file's argument, such as `hdcl,demo`, to the experiment: the methods' presets."""

import dataclasses

from fgjax import methods
from fgjax.config import Config
from fgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Offer:
    """What a config file offers.

    Attributes:
      name: of the config, for the workdir.
      dataset: as `Data.dataset` names it; methods with a preset for it are offered.
      default: the method without an argument.
      demo: whether the methods' demos on the drawn aircraft are offered, too.
    """

    name: str
    dataset: str
    default: str
    demo: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods with a preset for the dataset, the default first."""
        found = [n for n in methods.names() if self.dataset in _presets(n, "PRESETS", {})]
        return tuple(sorted(found, key=lambda n: (n != self.default, n)))

    def flags(self, method: str) -> tuple[str, ...]:
        """Further words that go with a method."""
        has_demo = self.demo and _presets(method, "DEMO", None) is not None
        return ("demo",) * has_demo + tuple(_presets(method, "FLAGS", {}))

    def config(self, argument: str = "") -> Config:
        """The experiment of an argument: a method as its paper trains it, or that method's demo.

        Raises:
          UserError: a word of the argument is unknown or does not fit the others.
        """
        method, words = self._parse(argument)
        demo = "demo" in words
        if demo:
            config = _presets(method, "DEMO", None)()
        else:
            config = _presets(method, "PRESETS", {})[self.dataset](self.dataset)
        for word, change in _presets(method, "FLAGS", {}).items():  # in the order given there
            if word in words:
                change(config, demo=demo)
        config.name = "-".join([self.name, method, *sorted(words)])
        return config

    def _parse(self, argument: str) -> tuple[str, frozenset[str]]:
        """Method and flags of a comma list such as `lapm,demo`."""
        words = [word for word in (argument or "").split(",") if word]
        flags = {flag: method for method in self.methods for flag in self.flags(method)}
        for word in words:
            if word not in self.methods and word not in flags:
                listed = f"; flags are {', '.join(sorted(flags))}" if flags else ""
                raise UserError(
                    f"{word!r} is neither a method nor a flag of this config: methods are "
                    f"{', '.join(self.methods)}{listed}."
                )
        chosen = [word for word in words if word in self.methods]
        if len(chosen) > 1:
            raise UserError(f"this config got two methods, {' and '.join(chosen)}: name one.")
        method = (chosen or [self.default])[0]
        for word in words:
            if word not in (method, *self.flags(method)):
                raise UserError(f"{word} is a flag of {flags[word]}, not of {method}.")
        return method, frozenset(words) - {method}


def _presets(method: str, name: str, default):
    module = methods.part(methods.get(method), "presets")
    return getattr(module, name, default)

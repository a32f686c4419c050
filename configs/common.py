"""What the config files share: reading the argument."""

from fgjax.errors import UserError


def parse(argument: str, *, methods: tuple[str, ...], flags: tuple[str, ...]):
    """Method and flags of a comma list such as `lapm,demo`; the first method is the default.

    Raises:
      UserError: a word is neither.
    """
    words = [word for word in (argument or "").split(",") if word]
    for word in words:
        if word not in (*methods, *flags):
            raise UserError(
                f"{word!r} is neither a method nor a flag of this config: methods are "
                f"{', '.join(methods)}; flags are {', '.join(flags)}."
            )
    chosen = [word for word in words if word in methods]
    if len(chosen) > 1:
        raise UserError(f"this config got two methods, {' and '.join(chosen)}: name one.")
    return (chosen or list(methods[:1]))[0], frozenset(words) - set(chosen)


def refuse(condition: bool, why: str) -> None:
    """Raise UserError with the reason if the condition holds."""
    if condition:
        raise UserError(why)

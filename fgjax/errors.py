"""Errors that are meant for people."""


class UserError(Exception):
    """What a person can mend: one sentence saying what is wrong, where, and what to do.

    Command lines print it without a traceback and exit with code 2.
    """


class SharedError(UserError):
    """One that another process of this run met, and says."""

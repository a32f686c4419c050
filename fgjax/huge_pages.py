"""Memory in pages of 2 MiB, where Linux gives them to who asks.

A training step takes and returns hundreds of MiB. In pages of 4 KiB the system fills each of them
with zeros anew, in every step: a tenth of a ResNet's time on a CPU, a quarter of an EfficientNet's.
glibc reads what it is told before a program starts, so a command starts itself once more.
"""

import os
import pathlib
import re
import sys

TUNABLE = "glibc.malloc.hugetlb"
FILE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SINCE = (2, 35)


def ask() -> None:
    """Start this process anew with `GLIBC_TUNABLES` that ask for huge pages.

    The process keeps its number. Nothing happens where they are given anyway or to nobody, where
    the C library is another or older, where `GLIBC_TUNABLES` says already what is wanted
    (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0`: none), in a notebook, and where only help is wanted.
    """
    known = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in known or {"-h", "--help"} & set(sys.argv):
        return
    if not _is_the_process() or not _given_on_request():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (known, f"{TUNABLE}=1")))
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # slower, but right
        del os.environ["GLIBC_TUNABLES"]
        if known:
            os.environ["GLIBC_TUNABLES"] = known


def _is_the_process() -> bool:
    """Whether it was started for this command, and is not a notebook that carries it out."""
    words = sys.argv[1:]
    started = sys.orig_argv[len(sys.orig_argv) - len(words) :]
    notebook = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return started == words and notebook is None


def mode() -> str | None:
    """To whom Linux gives huge pages: "always", "madvise" (who asks), "never"; None elsewhere."""
    try:
        found = re.search(r"\[(\w+)\]", FILE.read_text())
    except OSError:
        return None
    return found and found[1]


def _given_on_request() -> bool:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return (
            name == "glibc"
            and tuple(map(int, re.findall(r"\d+", version)[:2])) >= _SINCE
            and mode() == "madvise"
        )
    except (AttributeError, ValueError):  # another system, another C library
        return False

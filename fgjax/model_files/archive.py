"""One file of named members, sealed: a zip without compression, read without trusting it.

The zip's comment is the SHA-256 of all bytes before it. Members are stored as they are, so none can
be larger than the file, and none is ever written to disk.
"""

import hashlib
import io
import os
import pathlib
import re
import zipfile

from fgjax.errors import UserError

_MARK = b"fgjax sha256 "
_SEAL = len(_MARK) + 64  # bytes
_NAME = re.compile(r"[a-z0-9_]+([./-][a-z0-9_]+)*")
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same content gives the same file


def write(path: pathlib.Path, members: dict[str, bytes]) -> str:
    """Write a file, whole or not at all; returns its seal.

    Raises:
      UserError: it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        for name, data in members.items():
            opened.writestr(zipfile.ZipInfo(name, _WHEN), data)
        opened.comment = bytes(_SEAL)
    content = buffer.getbuffer()[:-_SEAL]
    seal = hashlib.sha256(content).hexdigest()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.write(_MARK + seal.encode())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    return seal


def read(path: pathlib.Path) -> tuple[dict[str, bytes], str]:
    """All members by name, and the seal.

    Raises:
      UserError: it is no such file, was cut short or changed, or could harm; says which.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _SEAL, 0))
            seal = file.read()
            if not seal.startswith(_MARK):
                raise UserError(
                    f"{path} is not a model file, or was cut short: get it anew, or write one with "
                    "fgjax export."
                )
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = hashlib.sha256(memoryview(content)[:-_SEAL]).hexdigest()
    if found.encode() != seal[len(_MARK) :]:
        raise UserError(f"{path} was changed or damaged after it was written: get it anew.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            entries = opened.infolist()
            _check(path, entries, size)
            return {entry.filename: opened.read(entry) for entry in entries}, found
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable model file ({error}): get it anew.") from error


def _check(path: pathlib.Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse names that could leave a folder, and members that say to be larger than the file."""
    for entry in entries:
        if not _NAME.fullmatch(entry.orig_filename):
            raise UserError(
                f"{path} has a member {entry.orig_filename!r}, which is no name of a model file's "
                "member: do not use it."
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UserError(
                f"{path} has a compressed member {entry.filename!r} of {entry.file_size:,} bytes, "
                "and model files have none: do not use it."
            )
    if sum(entry.file_size for entry in entries) > size:
        raise UserError(f"{path} says to hold more bytes than it has: do not use it.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise UserError(f"{path} has two members of one name: do not use it.")

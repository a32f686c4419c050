"""Official archives: finding, fetching and unpacking them safely."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib

from tqdm import tqdm

from fgjax.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Official:
    """A file of a dataset's official distribution.

    Attributes:
      name: as it is called there.
      url: its public address; empty where only a person can get it.
      sha256: of the official file, where it is known.
    """

    name: str
    url: str = ""
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a dataset is distributed.

    Attributes:
      files: archives to unpack into one folder, and plain files to put beside.
      unpacked: name of the folder that a person may have unpacked everything into.
      probe: a path inside it that exists if it is the right one.
      hint: what to look for, where there is no public address.
    """

    files: tuple[Official, ...]
    unpacked: str
    probe: str
    hint: str = ""

    def missing(self, manual_dir: pathlib.Path) -> list[Official]:
        """The files that are not there; none where a person has unpacked them."""
        if (manual_dir / self.unpacked / self.probe).exists():
            return []
        return [file for file in self.files if not (manual_dir / file.name).is_file()]

    def ask(self, title: str, manual_dir: pathlib.Path) -> str:
        """The sentence that says what a person has to put where."""
        names = ", ".join(file.name for file in self.missing(manual_dir) if not file.url)
        return (
            f"{title} is not on this machine and has no public address: put {names} into "
            f"{manual_dir}, or their contents into {manual_dir / self.unpacked} (so that "
            f"{self.probe} is in it){'; ' + self.hint if self.hint else ''}"
        )


def open_official(
    title: str, layout: Layout, manual_dir: pathlib.Path, stack: contextlib.ExitStack
) -> pathlib.Path:
    """Folder with a dataset's unpacked files: what a person put there, or fetched and unpacked.

    Args:
      title: how people call the dataset.
      layout: how it is distributed.
      manual_dir: where a person puts archives.
      stack: closed when the files are not needed any more; what was unpacked here is then removed.

    Raises:
      UserError: something is missing and cannot be fetched, has another checksum, or is unsafe.
    """
    if (manual_dir / layout.unpacked / layout.probe).exists():
        return manual_dir / layout.unpacked
    missing = layout.missing(manual_dir)
    if not all(file.url for file in missing):
        raise UserError(layout.ask(title, manual_dir))
    for file in missing:
        try:
            download(file.url, manual_dir / file.name)
        except OSError as error:
            raise UserError(
                f"{title} is not on this machine and could not be downloaded ({error}): put "
                f"{file.name} into {manual_dir}; its address is {file.url}"
            ) from error
        _check_sum(file, manual_dir / file.name)
    folder = manual_dir / f".unpacked-{layout.unpacked}-{os.getpid()}"
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    for file in layout.files:
        unpack(manual_dir / file.name, folder)
    for root in (folder / layout.unpacked, folder):
        if (root / layout.probe).exists():
            return root
    raise UserError(
        f"{', '.join(f.name for f in layout.files)} in {manual_dir} are not the expected files: "
        f"{layout.probe} is not in them."
    )


def _check_sum(file: Official, path: pathlib.Path) -> None:
    if not file.sha256:
        return
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        path.unlink()
        raise UserError(
            f"what {file.url} sent is not the official {file.name} (its sha256 is {found}, not "
            f"{file.sha256}); it was removed. Try again, or get the file elsewhere."
        )


def download(url: str, path: pathlib.Path) -> None:
    """Fetch a file with a progress bar; a broken transfer is taken up where it stopped.

    Raises:
      OSError: the server cannot be reached or sends less than it announced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the partial file is already whole
            raise
        partial.replace(path)
        return
    with response:
        resumed = have > 0 and response.status == 206
        rest = int(response.headers.get("Content-Length") or 0)
        total = rest + have if resumed else rest
        with (
            open(partial, "ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True,
                 desc=path.name) as bar,
        ):  # fmt: skip
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    if total and partial.stat().st_size < total:
        raise OSError(f"the connection broke after {partial.stat().st_size} of {total} bytes")
    os.replace(partial, path)


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Add an archive's contents to a folder, or the file itself if it is not an archive.

    Raises:
      UserError: the archive is truncated, not what its name says, or holds unsafe members:
        absolute paths, paths with `..`, links or devices.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = archive.name.lower()
        if name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                for member in zipped.infolist():
                    mode = member.external_attr >> 16
                    _refuse(archive, member.filename, linked=stat.S_ISLNK(mode))
                zipped.extractall(folder)
        elif name.endswith((".tar", ".tgz", ".tar.gz")):
            with tarfile.open(archive) as tar:
                for member in tar:
                    plain = member.isfile() or member.isdir()
                    _refuse(archive, member.name, linked=not plain)
                    tar.extract(member, folder, filter="data")
        else:
            shutil.copy(archive, folder / archive.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{archive} could not be unpacked into {folder}: {error}.") from error
        raise UserError(
            f"{archive} is truncated or is not the expected archive "
            f"({archive.stat().st_size:,} bytes): delete it and download it again."
        ) from error


def _refuse(archive: pathlib.Path, member: str, *, linked: bool) -> None:
    parts = member.replace("\\", "/").split("/")
    why = "is a link or a device" if linked else ""
    if member.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        why = "leads out of the archive's folder"
    if why:
        raise UserError(
            f"{archive} is refused: its member {_printable(member)} {why}, which no official "
            "archive has."
        )


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

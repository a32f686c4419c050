"""Official archives: finding, fetching and unpacking them safely."""

import logging
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib

from tqdm import tqdm

from fgjax.errors import UserError

log = logging.getLogger(__name__)


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


def unpack_tar(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpack a tar file into a folder, refusing members that would leave it.

    Raises:
      UserError: the archive is truncated, is not a tar file or holds unsafe members.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
    except tarfile.FilterError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{archive} is refused: {error}.") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{archive} could not be unpacked into {folder}: {error}.") from error
        raise UserError(
            f"{archive} is truncated or is not the expected archive "
            f"({archive.stat().st_size:,} bytes): delete it and download it again."
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)

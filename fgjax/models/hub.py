"""Files of the Hugging Face Hub: cached, taken up where a download stopped, and checked."""

import hashlib
import pathlib
import re
from collections.abc import Callable

from fgjax.errors import UserError


def cached(repository: str, file: str) -> bool:
    """Whether a file is here; nothing is downloaded."""
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str)


def download(repository: str, file: str, *, what: str, otherwise: str) -> pathlib.Path:
    """Path of a repository's file in the cache, where it is put if it is not there.

    Args:
      repository: USER/NAME.
      file: in it.
      what: it is, for the sentence, in the plural.
      otherwise: what to do without it.

    Raises:
      UserError: it is not there and cannot be fetched.
    """
    import huggingface_hub
    from huggingface_hub import errors as hub_errors

    offline = False
    try:
        if not cached(repository, file):
            offline = True  # unless it answers: without this one try the client goes on for 25 s
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, file))
            offline = False
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the client's own, its HTTP library's, the system's: all mean this
        answered = isinstance(error, hub_errors.HfHubHTTPError)
        offline = isinstance(error, hub_errors.LocalEntryNotFoundError) or (
            offline and not answered
        )
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = "the Hub cannot be reached" if offline else said
        raise UserError(
            f"{what} {repository} are not cached and could not be downloaded ({reason}); "
            f"{otherwise}."
        ) from error


def check(
    path: pathlib.Path, repository: str, whole: Callable[[pathlib.Path], bool], *, what: str
) -> None:
    """Refuse and remove what is not as the Hub published it.

    The cache names a large file by its SHA-256; anything else must be `whole`.

    Raises:
      UserError: it is not.
    """
    blob = path.resolve()
    by_name = re.fullmatch(r"[0-9a-f]{64}", blob.name)
    if not (sha256(blob) == blob.name if by_name else whole(blob)):
        for broken in {path, blob}:
            broken.unlink(missing_ok=True)
        raise UserError(
            f"{what} {repository} are corrupt and were removed from the cache: run the same "
            "command again to fetch them once more."
        )


def sha256(path: pathlib.Path) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

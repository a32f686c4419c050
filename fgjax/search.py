"""Find the images most like a given one, with any run or model file that makes embeddings.

fgjax search --workdir=RUN --index=FOLDER             add a folder to the run's index
fgjax search --workdir=RUN --query=IMAGE_OR_FOLDER    the most similar images in it

`fgjax index` takes images out again, lists them and finds those that are nearly the same.
`--model=FILE` takes a model file instead of a run.
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable

import numpy as np

from fgjax import command_line, main
from fgjax.data.images import check, decode
from fgjax.errors import UserError
from fgjax.figures import drawing
from fgjax.galleries import Entry, Store
from fgjax.methods.shared.predictor import Embedder
from fgjax.model_files import Model
from fgjax.opening import open_model
from fgjax.predict import find_images

log = logging.getLogger(__name__)


def store_of(model: Model, path: pathlib.Path, folder: pathlib.Path | None = None) -> Store:
    """The index in a folder, by default beside the model, which lies at `path`."""
    return Store(folder or command_line.beside(path, "index"), model.fingerprint)


def digest_of(data: bytes) -> str:
    """By which an image is known, whatever it is called."""
    return hashlib.sha256(data).hexdigest()


def embed_files(
    embedder: Embedder, paths: list[str], *, batch_size: int = 32, known: Iterable[str] = ()
) -> tuple[np.ndarray, list[Entry], list[pathlib.Path]]:
    """Unit embeddings [N, D] of all images under the paths, what they are, and what was left out.

    Args:
      embedder: of a model.
      paths: image files or folders.
      batch_size: images that go through the network at once.
      known: digests of images that are passed over.

    Raises:
      UserError: there is no readable image.
    """
    files, others = find_images(paths)
    found, kept, batch, passed = [], [], [], frozenset(known)

    def flush() -> None:
        if batch:
            found.append(embedder.of_images(batch, batch_size=batch_size))
            batch.clear()

    for file in files:
        data = file.read_bytes()
        if (digest := digest_of(data)) in passed:
            continue
        try:
            image = check(data, str(file))
        except UserError:
            others.append(file)
            continue
        batch.append(image)
        kept.append(Entry(str(file.absolute()), digest))
        if len(batch) == batch_size:
            flush()
    flush()
    if not kept and not passed:
        raise UserError(f"there is no readable image in {', '.join(paths)}.")
    return np.concatenate(found) if found else np.zeros((0, 0)), kept, others


def build_index(
    model: pathlib.Path, paths: list[str], folder: pathlib.Path | None = None
) -> list[pathlib.Path]:
    """Add images to an index; those that are in it are passed over. Returns what is no image.

    Args:
      model: a finished run's folder, or a model file.
      paths: image files or folders.
      folder: of the index; the model's own by default.

    Raises:
      UserError: no finished run, nothing to index, or another model's index.
    """
    opened = open_model(model)
    store = store_of(opened, model, folder)
    embeddings, entries, others = embed_files(opened.embedder, paths, known=store.known())
    added = store.add(embeddings, entries) if entries else 0
    log.info("%d images were added to %s, which holds %d", added, store.folder, len(store.open()))
    return others


def search(
    model: pathlib.Path,
    paths: list[str],
    index: pathlib.Path | None = None,
    *,
    top: int = 8,
    picture: pathlib.Path | None = None,
) -> list[dict]:
    """The `top` images of an index that are most like each query, by cosine similarity.

    Raises:
      UserError: there is no index, it is another model's, or there is no readable query.
    """
    opened = open_model(model)
    snapshot = store_of(opened, model, index).open()
    queries, asked, others = embed_files(opened.embedder, paths)
    report(others)
    results = [
        {
            "query": entry.file,
            "matches": [{"file": one.entry.file, "score": one.score} for one in matches],
        }
        for entry, matches in zip(asked, snapshot.search(queries, top), strict=True)
    ]
    if picture is not None:
        _gallery(results, picture)
    return results


def _gallery(results: list[dict], path: pathlib.Path, *, most: int = 12) -> None:
    """Queries at the left, their matches beside them."""
    images, captions = [], []
    shown = results[:most]
    columns = 1 + max(len(result["matches"]) for result in shown)
    for result in shown:
        entries = [(result["query"], "query")]
        entries += [(m["file"], f"{m['score']:.3f}") for m in result["matches"]]
        for file, caption in entries:
            images.append(_thumbnail(pathlib.Path(file)))
            captions.append(f"{caption}\n{pathlib.Path(file).name}")
    left_out = len(results) - len(shown)
    note = f" ({left_out} further queries are not drawn)" if left_out else ""
    title = f"queries and the most similar images, by cosine{note}"
    drawing.sheet(images, captions, path, columns=columns, title=title, listed=False)


def _thumbnail(file: pathlib.Path, side: int = 224) -> np.ndarray:
    try:
        return drawing.enlarge(decode(file.read_bytes(), str(file)), side)
    except (OSError, UserError):  # moved or changed since it was indexed
        return np.full((side, side, 3), 255, np.uint8)


def report(others: list[pathlib.Path]) -> None:
    """Say which files were left out; names up to ten."""
    if others:
        named = ", ".join(str(file) for file in others[:10])
        more = ", …" if len(others) > 10 else ""
        log.warning("%d files are not images and are left out: %s%s", len(others), named, more)


def command(arguments: list[str] | None = None) -> None:
    """`fgjax search`."""
    parser = command_line.parser_of("search", __doc__)
    command_line.add_source_options(parser)
    parser.add_argument("--index", metavar="FOLDER", help="add this folder to the index")
    parser.add_argument("--query", nargs="+", metavar="IMAGE_OR_FOLDER", help="what to look for")
    parser.add_argument("--top", type=int, default=8, help="matches to list (8)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--file", type=pathlib.Path, help="the index's folder (beside the model)")
    parser.add_argument(
        "--out", type=pathlib.Path, help="the picture (search.png, beside the model)"
    )
    options = parser.parse_args(arguments)
    main.setup()
    if not options.index and not options.query:
        raise UserError("say what to do: --index=FOLDER, --query=IMAGE_OR_FOLDER, or both.")
    if options.top < 1:
        raise UserError(f"--top is {options.top}, but must be at least 1.")
    source = command_line.source_of(options)
    if options.index:
        report(build_index(source, [options.index], options.file))
    if not options.query:
        return
    picture = options.out or command_line.beside(source, "search.png")
    results = search(source, options.query, options.file, top=options.top, picture=picture)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        print(result["query"])
        for match in result["matches"]:
            print(f"  {match['score']:6.3f}  {match['file']}")
    print(f"picture: {picture}")


if __name__ == "__main__":
    command_line.run(command)

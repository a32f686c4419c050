"""The images that a run searches among.

fgjax index add        --workdir=RUN IMAGE_OR_FOLDER…    those that are there are passed over
fgjax index remove     --workdir=RUN FILE_OR_FOLDER…     by where they lay
fgjax index list       --workdir=RUN
fgjax index duplicates --workdir=RUN                     images that are nearly the same
fgjax index export     --workdir=RUN --out=FILE          as a file of faiss, with its recall

`--model=FILE` takes a model file instead of a run. The index lies beside the model, or where --file
says: there may be several. Others may search it meanwhile.
"""

import argparse
import json
import pathlib
import sys

from fgjax import command_line, main
from fgjax.errors import UserError
from fgjax.galleries import faiss_files
from fgjax.opening import open_model
from fgjax.search import build_index, report, store_of

ACTIONS = ("add", "remove", "list", "duplicates", "export")


def remove(model: pathlib.Path, paths: list[str], folder: pathlib.Path | None = None) -> int:
    """Take images out of an index, by their files or the folders that they lay in.

    Raises:
      UserError: there is no such index, or nothing in it lay there.
    """
    store = store_of(open_model(model), model, folder)
    wanted = [pathlib.Path(path).absolute() for path in paths]
    gone = [
        entry.digest
        for entry in store.open().entries
        if any(pathlib.Path(entry.file).is_relative_to(path) for path in wanted)
    ]
    if not gone:
        raise UserError(
            f"no image of {store.folder} lay in {', '.join(paths)}: see `fgjax index list`."
        )
    return store.remove(gone)


def _exported(source: pathlib.Path, options: argparse.Namespace) -> str:
    """Write a file of faiss; a sentence on it."""
    if options.out is None:
        raise UserError("fgjax index export wants --out=FILE: name one.")
    snapshot = store_of(open_model(source), source, options.file).open()
    recall = faiss_files.write(snapshot, options.out, kind=options.kind)
    return (
        f"{options.out}, and {options.out.name}.jsonl beside it: {len(snapshot):,} rows, "
        f"{options.kind}; it finds {recall:.1%} of the {faiss_files.AMONG} nearest"
    )


def command(arguments: list[str] | None = None) -> None:
    """`fgjax index`."""
    parser = command_line.parser_of("index", __doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images or folders")
    command_line.add_source_options(parser)
    parser.add_argument("--file", type=pathlib.Path, help="the index's folder (beside the model)")
    parser.add_argument("--threshold", type=float, default=0.98,
                        help="cosine from which on images are nearly the same (0.98)")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, help="of export: the file to write")
    parser.add_argument("--kind", choices=faiss_files.KINDS, default="flat",
                        help="of export: every row, or a graph (flat)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Taken off first: argparse would not find paths that stand behind options.
    action = words.pop(0) if words and not words[0].startswith("-") else ""
    options = parser.parse_args(words)
    if action not in ACTIONS:
        raise UserError(f"fgjax index knows no {action!r}; it knows {', '.join(ACTIONS)}.")
    if (action in ("add", "remove")) != bool(options.paths):
        raise UserError(
            f"fgjax index {action} " + ("takes no paths." if options.paths
                                                else "wants images or folders: name some.")
        )  # fmt: skip
    main.setup()
    source = command_line.source_of(options)
    if action == "add":
        report(build_index(source, options.paths, options.file))
    elif action == "export":
        print(_exported(source, options))
    elif action == "remove":
        print(f"{remove(source, options.paths, options.file)} images were taken out")
    else:
        snapshot = store_of(open_model(source), source, options.file).open()
        if action == "list":
            found = [entry._asdict() for entry in snapshot.entries]
            lines = [entry["file"] for entry in found] + [f"{len(found)} images"]
        else:
            if not -1 <= options.threshold <= 1:
                raise UserError(f"--threshold is {options.threshold}, but must be in [-1, 1].")
            pairs = snapshot.alike(options.threshold)
            found = [{"one": a.file, "other": b.file, "score": score} for a, b, score in pairs]
            lines = [f"{p['score']:.3f}  {p['one']}  {p['other']}" for p in found]
            lines.append(f"{len(found)} pairs")
        print(json.dumps(found, indent=2) if options.json else "\n".join(lines))


if __name__ == "__main__":
    command_line.run(command)

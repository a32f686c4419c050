"""New images and classes for a finished run, without training.

fgjax learn  --workdir=RUN FOLDER                    FOLDER/CLASS/*.jpg, as for training
fgjax learn  --workdir=RUN --class=NAME IMAGES…      images of one class
fgjax forget --workdir=RUN CLASS_OR_FILE…            take learned ones away
fgjax forget --workdir=RUN --all                     as it was trained

A probe with the head knn or cosine learns images and classes, CCFR further images of its classes.
What was trained stays as it is: what is learned lies in WORKDIR/memory.
"""

import dataclasses
import pathlib
import sys

from fgjax import command_line, main, methods
from fgjax.errors import UserError
from fgjax.galleries import Entry
from fgjax.methods.shared.memory import Memory
from fgjax.predict import find_images
from fgjax.search import embed_files, report
from fgjax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of a run's memory.

    Attributes:
      images: by class, those that were added or taken away.
      total: images that it remembers now, beside those that it was trained on.
      others: files that are no images.
    """

    images: dict[str, int]
    total: int
    others: list[pathlib.Path]


def learn(workdir: pathlib.Path, paths: list[str], *, name: str = "") -> Change:
    """Add images to a finished run's memory; those that it knows are passed over.

    Args:
      workdir: of the run.
      paths: folders with a folder of images for each class; with `name`, images or folders.
      name: their class.

    Raises:
      UserError: the run cannot learn, a class has no image, or nothing is there.
    """
    run = main.open_run(workdir)
    memory = memory_of(run)
    classes = {name: paths} if name else _classes(paths)
    memory.check(set(classes))
    for label, own in classes.items():
        if not find_images(own)[0]:
            raise UserError(f"the class {label} has no image in {', '.join(own)}: put in some.")
    embedder = methods.of(run.config).load_embedder(run)
    known = memory.store.known() | set(run.dataset.train.digests())
    added, others = {}, []
    for label, own in classes.items():
        vectors, entries, odd = embed_files(embedder, own, known=known)
        others += odd
        if entries:
            labelled = [entry._replace(label=label) for entry in entries]
            added[label] = memory.store.add(vectors, labelled)
            known |= {entry.digest for entry in entries}
    return Change(added, _size(memory), others)


def forget(workdir: pathlib.Path, wanted: list[str], *, everything: bool = False) -> Change:
    """Take learned images away, by their classes, files or folders.

    Raises:
      UserError: nothing of it was learned.
    """
    memory = memory_of(main.open_run(workdir))
    entries: list[Entry] = memory.store.open().entries if memory.store.exists else []
    places = [pathlib.Path(one).absolute() for one in wanted]

    def goes(entry: Entry) -> bool:
        lies = any(pathlib.Path(entry.file).is_relative_to(place) for place in places)
        return everything or entry.label in wanted or lies

    gone = [entry for entry in entries if goes(entry)]
    if not gone:
        what = ", ".join(wanted) if wanted else "it"
        raise UserError(f"{workdir} learned nothing of {what} after its training.")
    memory.store.remove(entry.digest for entry in gone)
    labels = [entry.label for entry in gone]
    return Change({label: labels.count(label) for label in sorted(set(labels))}, _size(memory), [])


def memory_of(run: Run) -> Memory:
    """Of a finished run.

    Raises:
      UserError: its method learns nothing without training.
    """
    method = methods.of(run.config)
    if not hasattr(method, "load_memory"):
        raise UserError(
            f"{run.workdir} is a run of {methods.name_of(method)}, which learns by training alone: "
            "a probe with --config.method.head=knn or cosine, and CCFR, learn afterwards."
        )
    return method.load_memory(run)


def _size(memory: Memory) -> int:
    return len(memory.store.open()) if memory.store.exists else 0


def _classes(paths: list[str]) -> dict[str, list[str]]:
    """{class: its folders}."""
    found: dict[str, list[str]] = {}
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            raise UserError(
                f"{path} is no folder: name one with a folder of images for each class, or images "
                "with --class=NAME."
            )
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            raise UserError(
                f"{path} has no folder of images for each class: name them with --class=NAME."
            )
        for folder in folders:
            found.setdefault(folder.name, []).append(str(folder))
    return found


def command(arguments: list[str] | None = None) -> None:
    """`fgjax learn`."""
    parser = command_line.parser_of("learn", __doc__)
    parser.add_argument("paths", nargs="+", metavar="FOLDER_OR_IMAGE")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="a finished run")
    parser.add_argument("--class", dest="name", default="", help="the class of all of them")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    main.setup()
    found = learn(options.workdir, options.paths, name=options.name)
    report(found.others)
    _tell("learned", found)


def forget_command(arguments: list[str] | None = None) -> None:
    """`fgjax forget`."""
    parser = command_line.parser_of("forget", __doc__)
    parser.add_argument("wanted", nargs="*", metavar="CLASS_OR_FILE")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="a finished run")
    parser.add_argument("--all", action="store_true", help="all that it learned after training")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if bool(options.wanted) == options.all:
        raise UserError("say what to forget: classes, files or folders, or --all.")
    main.setup()
    _tell("forgot", forget(options.workdir, options.wanted, everything=options.all))


def _tell(verb: str, found: Change) -> None:
    for label, count in found.images.items():
        print(f"{verb} {count} images of {label}")
    if not found.images:
        print("nothing new: it knows all of these images")
    print(f"it remembers {found.total} images beside those that it was trained on")


if __name__ == "__main__":
    command_line.run(command)

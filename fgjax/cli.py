"""fgjax: fine-grained image recognition and retrieval in JAX.

    fgjax train   --config=aircraft:demo        train and measure a model
    fgjax predict --workdir=RUN IMAGES…         classes, object and parts of images
    fgjax search  --workdir=RUN --index=FOLDER  find the images most like a given one
    fgjax export  --workdir=RUN --out=FILE      one file of the model, for other machines
    fgjax push    FILE USER/NAME                that file to the Hugging Face Hub, with a card
    fgjax study   aircraft:demo table5          a table or figure of a paper, seed by seed
    fgjax index   add --workdir=RUN FOLDER      the images that it searches among
    fgjax learn   --workdir=RUN FOLDER          new images and classes, without training
    fgjax forget  --workdir=RUN CLASS           take them away again
    fgjax serve   --workdir=RUN                 a page on which photographs are dropped
    fgjax compare RUN RUN…                      finished runs side by side, image by image
    fgjax doctor  --config=cub                  what stands between this machine and a training
    fgjax configs                               every config with its methods and flags

`fgjax COMMAND --help` tells more about each.
"""

import importlib
import sys

from fgjax import __version__, command_line, huge_pages
from fgjax.errors import UserError

COMMANDS = {
    "train": "fgjax.train",
    "predict": "fgjax.predict",
    "search": "fgjax.search",
    "export": "fgjax.export",
    "push": "fgjax.push",
    "study": "fgjax.study",
    "index": "fgjax.index",
    "learn": "fgjax.learn",
    "forget": "fgjax.learn:forget_command",
    "serve": "fgjax.serve.command",
    "compare": "fgjax.compare",
    "doctor": "fgjax.doctor",
    "configs": "fgjax.config_files",
}
# Worth a second start for huge pages: these compute for minutes.
LONG = ("train", "predict", "search", "study", "index", "learn", "serve")


def dispatch(arguments: list[str]) -> object:
    """Run the command that the first word names.

    Raises:
      UserError: there is none of that name; lists those that there are.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"fgjax {__version__}")
        return 0
    word, *rest = arguments
    if word not in COMMANDS:
        raise UserError(
            f"fgjax has no command {word!r}; there are {', '.join(COMMANDS)}: see fgjax --help."
        )
    module, _, function = COMMANDS[word].partition(":")
    return getattr(importlib.import_module(module), function or "command")(rest)


def main() -> None:
    """The console command."""
    if sys.argv[1:2] and sys.argv[1] in LONG:
        huge_pages.ask()
    command_line.run(lambda: dispatch(sys.argv[1:]))

"""A model file to a repository of the Hugging Face Hub, with a card that says what it is.

fgjax push bird.fgjax USER/NAME             only you see it
fgjax push bird.fgjax USER/NAME --public    anyone does

The Hub's own login is used (`hf auth login`, or the variable HF_TOKEN).
`fgjax.load("USER/NAME")` fetches the model.
"""

import pathlib
import sys

from fgjax import __version__, command_line, model_files
from fgjax.errors import UserError
from fgjax.model_files import Model
from fgjax.report import scores

_TASKS = {True: "image-classification", False: "image-feature-extraction"}


def push(path: pathlib.Path, repository: str, *, public: bool = False) -> str:
    """Upload a model file and its card in one commit; returns the repository's address.

    Args:
      path: of a file that `fgjax export` wrote.
      repository: USER/NAME; made if it is not there.
      public: whether one that is made can be seen by anyone.

    Raises:
      UserError: it is no model file, no name of a repository, or the Hub refuses.
    """
    if not path.is_file():
        raise UserError(f"there is no model file {path}: write one with fgjax export.")
    if not model_files.REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r} is no repository: say USER/NAME.")
    text = card(model_files.load(path), repository)
    import huggingface_hub

    hub = huggingface_hub.HfApi(library_name="fgjax", library_version=__version__)
    add = huggingface_hub.CommitOperationAdd
    try:
        made = hub.create_repo(repository, private=not public, exist_ok=True)
        hub.create_commit(
            made.repo_id,
            [add(model_files.FILE, str(path)), add("README.md", text.encode())],
            commit_message=f"{path.name}, by fgjax {__version__}",
        )
    except Exception as error:  # the client's own, its HTTP library's, the system's
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} could not be pushed to {repository} ({said}): log in with `hf auth login`, "
            "and see that the name is yours."
        ) from error
    return str(made)


def card(model: Model, repository: str) -> str:
    """README.md of the repository: scores with their protocol, confusions, licence, how to load."""
    known, protocol = model.card, model.card["protocol"]
    lines = [
        *_front_matter(model), f"# {known['name']}", "",
        f"A model of [fgjax](https://pypi.org/project/fgjax/), method `{known['method']}`.", "",
        scores.verdict(known["scores"], protocol), "",
        "```python", "import fgjax", "", f'model = fgjax.load("{repository}")', *_use(model), "```",
        "", "## Scores", "", "| what | test images, 95 % interval |", "|---|---|",
    ]  # fmt: skip
    for score in scores.table(known["scores"], protocol["test_images"]):
        between = "" if score.low is None else f" ({score.low:.1f} to {score.high:.1f})"
        lines.append(f"| {score.name} | {score.value:.1f} %{between} |")
    lines += ["", "## What the scores have to be read with", "", "| what | how |", "|---|---|"]
    lines += [f"| {what} | {how} |" for what, how in scores.conditions(protocol)]
    if known.get("confusions"):
        lines += ["", "## What it takes for one another", "",
                  "| class | taken for | times |", "|---|---|---|"]  # fmt: skip
        lines += [f"| {one['true']} | {one['other']} | {one['times']} of {one['total']} |"
                  for one in known["confusions"]]  # fmt: skip
    if model.class_names:
        lines += ["", "## Classes", "", ", ".join(model.class_names)]
    lines += ["", "## Licence", "", known["licence"], ""]
    return "\n".join(lines)


def _front_matter(model: Model) -> list[str]:
    """What the Hub reads of a card."""
    return [
        "---", "library_name: fgjax", f"pipeline_tag: {_TASKS[bool(model.class_names)]}",
        "license: other", "license_name: see-below", "tags:", "- fgjax", "- fine-grained",
        f"- {model.card['method']}", "---", "",
    ]  # fmt: skip


def _use(model: Model) -> list[str]:
    if not model.class_names:
        return ['embeddings = model.embed(["photograph.jpg"])']
    return [
        '(found,) = model.predict(["photograph.jpg"])',
        "print(model.class_names[found.probabilities.argmax()], found.probabilities.max())",
    ]


def command(arguments: list[str] | None = None) -> None:
    """`fgjax push`."""
    parser = command_line.parser_of("push", __doc__)
    parser.add_argument("file", type=pathlib.Path, help="a file that fgjax export wrote")
    parser.add_argument("repository", help="USER/NAME")
    parser.add_argument("--public", action="store_true", help="anyone may see it")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    address = push(options.file, options.repository, public=options.public)
    seen = "anyone can see it" if options.public else "as a new one, only you see it"
    print(f"{address}  ({seen})")


if __name__ == "__main__":
    command_line.run(command)

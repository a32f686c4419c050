"""DeepFashion, Category and Attribute Prediction (Liu et al. 2016): 289,222 images of clothes.

50 categories of three types are listed and keep their official numbers, though four of them (Cape,
Nightdress, Shirtdress, Sundress) were merged into Dress and occur nowhere: 46 do. The official
train images train (209,222) and the test images test (40,000); the validation images are left out.
"""

import pathlib

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

FILES = tuple(
    archives.Official(name)
    for name in ("img.zip", "list_category_cloth.txt", "list_category_img.txt", "list_bbox.txt",
                 "list_eval_partition.txt")
)  # fmt: skip
HINT = (
    "ask for the data at mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html, which gives the folders "
    "Anno, Eval and Img of the Category and Attribute Prediction Benchmark"
)
TYPES = {"1": "upper body", "2": "lower body", "3": "full body"}


class DeepFashion(base.FineGrainedBuilder):
    """Categories as labels, upper, lower or full body as the coarser level, boxes."""

    title = "DeepFashion (Category and Attribute Prediction)"
    levels = ("type",)
    official_counts = base.Counts(train=209_222, test=40_000, classes=50)

    def class_names(self):
        """Such as `Anorak`, by the official numbers, kept beside the prepared files."""
        return self.sidecar("classes.txt").read_text().splitlines()

    def layout(self):
        """The official folders Anno, Eval and Img, or the files out of them."""
        folders = (self.manual_dir / "deepfashion" / "Anno").is_dir()
        return archives.Layout(FILES, "deepfashion", "Anno" if folders else "img", HINT)

    def examples(self, split, work_dir):
        """Read the official lists; each begins with its length and a line of headings."""
        find = lambda name: _table(work_dir, name, self.title)  # noqa: E731
        categories = find("list_category_cloth.txt")
        names = [row[0] for row in categories]
        self.sidecar("classes.txt").write_text("\n".join(names))
        types = [TYPES[row[1]] for row in categories]
        labels, boxes = dict(find("list_category_img.txt")), find("list_bbox.txt")
        box_of = {row[0]: tuple(map(float, row[1:])) for row in boxes}
        chosen = [path for path, part in find("list_eval_partition.txt") if part == split]
        root = next((r for r in (work_dir / "Img", work_dir) if (r / "img").is_dir()), None)
        if root is None:
            raise UserError(f"{self.title}: the folder Img/img is missing; unpack img.zip there.")

        def read():
            for path in chosen:
                data = base.read_image(root / path, self.title)
                label = int(labels[path]) - 1
                yield {
                    "image": data,
                    "label": label,
                    "bbox": base.box_of(data, box_of.get(path)),
                    "filename": path,
                    "type": types[label],
                }

        return len(chosen), read()


def _table(work_dir: pathlib.Path, name: str, title: str) -> list[list[str]]:
    """Rows of an official list without its two header lines; names have no spaces in them."""
    places = [work_dir / folder / name for folder in ("Anno", "Eval", "Anno_coarse", "")]
    path = next((p for p in places if p.is_file()), places[0])
    count, _, *rows = base.lines_of(path, title)
    if int(count) != len(rows):
        raise UserError(
            f"{title}: {name} announces {int(count):,} rows but has {len(rows):,}: it is cut short."
        )
    return [row.split() for row in rows]


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> DeepFashion:
    """Builder of the files in `manual_dir`; `subset` takes a part of them."""
    return base.official(DeepFashion, variant, data_dir, manual_dir)

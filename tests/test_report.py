"""report.html: complete, alone, readable by everybody, and never markup from a name."""

import html.parser
import json

import cv2
import numpy as np
import pytest

from fgjax import compare
from fgjax.data.datasets.splits import Split
from fgjax.errors import UserError
from fgjax.report import page, pictures, reading, scores, study

LIMIT = 5_000_000  # bytes


class Page(html.parser.HTMLParser):
    """What a page holds."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open, self.ids = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def alone(path):
    """The page, after everything that any of our pages must have."""
    assert path.stat().st_size < LIMIT
    found = Page(path)
    for tag, attributes in found.tags:
        for name in ("src", "href", "srcset", "xlink:href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("data:image/webp;base64,", "#")), (tag, address[:80])
    assert not found.all("script") and not found.all("link") and not found.all("iframe")
    assert all(image.get("alt") for image in found.all("img"))
    assert found.all("html") == [{"lang": "en"}] and len(found.all("h1")) == 1
    assert len(found.all("main")) == 1 and found.all("title")
    assert len(set(found.ids)) == len(found.ids)
    for link in found.all("a"):
        assert link["href"].removeprefix("#") in found.ids
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text and "@import" not in text
    return found


@pytest.mark.parametrize("method", ["lapm", "ghns", "hdcl", "recognition", "ccfr", "probe"])
def test_every_method_ends_with_a_report(method, request):
    workdir = request.getfixturevalue(f"finished_{method}")
    found = alone(workdir / "report.html")
    results = json.loads((workdir / "results.json").read_text())
    metrics, text = results["metrics"], " ".join(found.text)
    value = metrics["recall@1"] if method == "hdcl" else metrics["top1"]
    assert f"{100 * value:.1f} %" in text
    assert str(results["protocol"]["dataset_fingerprint"]) in text
    captions = json.loads((workdir / "figures" / "captions.json").read_text())
    shown = {image["alt"] for image in found.all("img")}
    assert {said for name, said in captions.items() if name != "confusions.webp"} <= shown
    uncalibrated = "temperature" not in metrics and method != "hdcl"
    assert ("no images were held out to fit a temperature" in text) == uncalibrated
    if method == "hdcl":
        assert "of classes that it never saw" in text
    else:
        assert len(found.all("svg")) == 1 and "confusions" in found.ids


def test_the_slowest_images_are_found_by_their_files():
    """One photograph of a camera among small ones."""
    rng = np.random.default_rng(0)
    small = [cv2.imencode(".jpg", rng.integers(0, 256, (40, 60, 3), np.uint8))[1].tobytes()
             for _ in range(9)]  # fmt: skip
    large = cv2.imencode(".png", rng.integers(0, 256, (900, 1200, 3), np.uint8))[1].tobytes()
    files = [*small[:4], large, *small[4:]]
    split = Split(
        source=[{"image": data} for data in files], labels=np.zeros(10, np.int32),
        boxes=np.zeros((10, 4)), parts=None, filenames=tuple(f"{n}.jpg" for n in range(10)),
    )  # fmt: skip
    found, usual = reading.slowest(split, 32)
    assert found[0].row == 4 and found[0].pixels == (900, 1200) and found[0].bytes == len(large)
    assert found[0].milliseconds > 3 * usual > 0
    assert len(found) == reading.SHOWN
    assert sorted(one.milliseconds for one in found)[::-1] == [one.milliseconds for one in found]


def test_a_name_is_text_and_no_markup(tmp_path):
    name = "<script>alert(1)</script>\"'&"
    line = study.Line(name, (1.0, 2.0), (name,))
    path = study.write(tmp_path, title=name, source=name, metric=name, columns=[name],
                       lines=[line], command=name)  # fmt: skip
    found = alone(path)
    assert name in " ".join(found.text)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "compare.html"
    path.write_text("before")
    with pytest.raises(Exception, match="'sides' is undefined"):
        page.write(path, "compare.html", title="x")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_the_rows_of_a_study_are_compared_seed_by_seed(tmp_path):
    first = study.Line("one", (80.0, 82.0, 84.0))
    second = study.Line("two", (81.0, 84.0, 84.0))
    assert first.beside(first) is None and study.Line("short", (1.0,)).beside(first) is None
    assert second.beside(first) == pytest.approx((1.0, 1.0))  # differences 1, 2, 0
    path = study.write(tmp_path, title="t", source="s", metric="top1", columns=[],
                       lines=[first, second], command="fgjax study …")  # fmt: skip
    assert "+1.0 ± 1.0" in " ".join(alone(path).text)


def test_scores_have_intervals_where_images_were_counted():
    rows = {row.key: row for row in scores.table({"top1": 0.5, "mean_class_accuracy": 0.4}, 100)}
    assert (rows["top1"].low, rows["top1"].high) == pytest.approx((40.38, 59.62), abs=0.01)
    assert rows["mean_class_accuracy"].low is None and rows["mean_class_accuracy"].value == 40


def test_a_reliability_diagram_puts_each_group_where_it_lies():
    bins = {"images": np.array([0, 4]), "confidence": np.array([np.nan, 0.5]),
            "accuracy": np.array([np.nan, 1.0])}  # fmt: skip
    drawn = pictures.reliability(bins)
    assert 'cx="184.0" cy="10.0"' in drawn and drawn.count("<circle") == 1
    assert "4 images: 50 % sure, 100 % right" in drawn


def test_pictures_are_of_the_size_shown():
    image = np.random.default_rng(0).integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    assert len(pictures.thumbnail(image)) < 40_000


def test_a_run_is_compared_with_itself_and_refused_beside_another_dataset(
    finished_probe, finished_lapm, finished_hdcl, copy_of, tmp_path
):
    again = copy_of(finished_probe)
    sides = compare.compare([finished_probe, again])
    metrics = json.loads((finished_probe / "results.json").read_text())["metrics"]
    assert [side.value for side in sides] == pytest.approx([100 * metrics["top1"]] * 2)
    assert sides[0].difference is None and sides[1].difference == (0, 0, 0)
    assert sides[1].differs == "not told apart" and "+0.0 to +0.0" in compare.text(sides)
    page.write(tmp_path / "c.html", "compare.html", title="Runs", sides=sides)
    assert "not told apart" in " ".join(alone(tmp_path / "c.html").text)
    with pytest.raises(UserError, match="was tested on other images"):
        compare.compare([finished_probe, finished_hdcl])
    with pytest.raises(UserError, match="two runs or more"):
        compare.compare([finished_lapm])


def test_retrieval_counts_the_nearest_image(finished_hdcl, copy_of):
    sides = compare.compare([finished_hdcl, copy_of(finished_hdcl)])
    metrics = json.loads((finished_hdcl / "results.json").read_text())["metrics"]
    assert sides[0].value == pytest.approx(100 * metrics["recall@1"])

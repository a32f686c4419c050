"""`fgjax predict --table`: rows as they come, going on, and what it refuses."""

import csv
import json

import cv2
import numpy as np
import pytest

from fgjax import predict, prediction_tables
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Prediction
from fgjax.model_files import Model

COUNT = 2 * prediction_tables.CHUNK + 5


class Asked:
    """A model that knows an image by its brightness, and remembers how many it saw."""

    def __init__(self, fingerprint="0123"):
        self.class_names = ("dark", "grey", "bright")
        self.fingerprint, self.seen, self.most = fingerprint, 0, 0
        self.stop_after = 10**9

    def predict(self, images):
        if self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen, self.most = self.seen + len(images), max(self.most, len(images))
        for image in images:
            level = cv2.imdecode(np.frombuffer(image.data, np.uint8), 0).mean() / 255
            probabilities = np.array([1 - level, 0.25, level]) / 1.25
            yield Prediction(
                probabilities=probabilities, box=np.array([0.1, 0.2, 0.9, 1.0]),
                parts=np.zeros((0, 4)),
            )  # fmt: skip


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        level = np.full((8, 8, 3), 255 * (number % 3) // 2, np.uint8)
        (folder / f"{number:04d}, é.png").write_bytes(cv2.imencode(".png", level)[1].tobytes())
    (folder / "0003, é.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


def rows_of(table):
    text = table.read_text(encoding="utf-8")
    if table.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def fill(model, images, table, **options):
    return prediction_tables.fill(model, images, table, **{"top": 2, "rate": 0.1, **options})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_file_has_its_row_in_order(images, tmp_path, suffix):
    model, table = Asked(), tmp_path / f"new/table{suffix}"
    done = fill(model, images, table)
    assert done == prediction_tables.Written(COUNT, 0, 1)
    rows = rows_of(table)
    assert [row["file"] for row in rows] == [str(file) for file in images]
    assert model.most <= prediction_tables.CHUNK  # never all of them in memory
    assert "0003" in rows[3]["error"] and rows[3].get("class_1", "") == ""
    for number in (0, 1, 2, COUNT - 1):
        likeliest = ("dark", "dark", "bright")[number % 3]
        if suffix == ".csv":
            assert rows[number]["class_1"] == likeliest
            assert float(rows[number]["probability_1"]) == pytest.approx(
                0.8 if number % 3 != 1 else 0.4, abs=0.01
            )
            assert [rows[number][f"box_{s}"] for s in ("top", "left", "right")] == [
                "0.1000", "0.2000", "1.0000",
            ]  # fmt: skip
        else:
            assert rows[number]["top"][0]["class"] == likeliest
            assert len(rows[number]["top"]) == 2 and rows[number]["box"] == [0.1, 0.2, 0.9, 1.0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_stopped_table_goes_on_and_is_the_same_in_the_end(images, tmp_path, suffix):
    whole, table = tmp_path / f"whole{suffix}", tmp_path / f"table{suffix}"
    fill(Asked(), images, whole)
    model = Asked()
    model.stop_after = prediction_tables.CHUNK - 1
    with pytest.raises(KeyboardInterrupt):
        fill(model, images, table)
    begun = table.read_bytes()
    assert whole.read_bytes().startswith(begun) and 10 < len(rows_of(table)) < COUNT
    table.write_bytes(begun[:-7])  # killed inside of a row
    model.stop_after = 10**9
    before = model.seen
    done = fill(model, images, table)
    assert table.read_bytes() == whole.read_bytes()
    assert done.new == COUNT - prediction_tables.CHUNK + 1 == COUNT - done.earlier
    assert model.seen - before == done.new
    assert fill(model, images, table) == prediction_tables.Written(0, COUNT, 0)
    assert table.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_is_no_table_of_this_model_is_left_alone(images, tmp_path, suffix):
    table = tmp_path / f"table{suffix}"
    fill(Asked(), images[:3], table)
    kept = table.read_bytes()
    with pytest.raises(UserError, match=r"another model \(0123; this one is 4567\): name another"):
        fill(Asked("4567"), images, table)
    for text in ("something else\nentirely\n", "{}\n"):
        other = tmp_path / f"other{suffix}"
        other.write_text(text)
        with pytest.raises(UserError, match="name another"):
            fill(Asked(), images, other)
        assert other.read_text() == text
    assert table.read_bytes() == kept


def test_a_csv_has_the_columns_that_top_asks_for(images, tmp_path):
    fill(Asked(), images[:3], tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"other columns than predictions with --top=3"):
        fill(Asked(), images, tmp_path / "a.csv", top=3)


def test_names_are_written_as_they_are(images, tmp_path):
    odd = tmp_path / 'a "b", c\u2028d\ne.png'
    odd.write_bytes(images[0].read_bytes())
    for name in ("a.csv", "a.jsonl"):
        for new in (1, 0):
            assert fill(Asked(), [odd], tmp_path / name).new == new
    assert json.loads((tmp_path / "a.jsonl").read_text())["file"].endswith("c\u2028d e.png")


def test_refusals(images, tmp_path):
    with pytest.raises(UserError, match=r"end it with \.csv or \.jsonl"):
        fill(Asked(), images, tmp_path / "table.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fill(Asked(), images, tmp_path / "file" / "table.csv")


def test_the_command(finished_lapm, tiny_dataset, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for row in range(3):
        (tmp_path / "images" / f"{row}.jpg").write_bytes(tiny_dataset.test.source[row]["image"])
    words = [f"--workdir={finished_lapm}", str(tmp_path / "images")]
    table = tmp_path / "found.csv"
    for said in ("3 new rows beside 0", "0 new rows beside 3"):
        predict.command([*words, f"--table={table}", "--top=1"])
        assert capsys.readouterr().out == f"{table}: {said} that were there.\n"
    wanted = predict.predict(finished_lapm, words[1:], top=1)
    for row, other in zip(rows_of(table), wanted, strict=True):
        assert row["class_1"] == other["top"][0]["class"]
        assert float(row["probability_1"]) == pytest.approx(other["top"][0]["probability"], 1e-5)
        assert "picture" not in row
    for flag in ("--json", "--time", f"--out={tmp_path}"):
        with pytest.raises(UserError, match="does not go with --table"):
            predict.command([*words, f"--table={table}", flag])
    with pytest.raises(UserError, match="--top is 0"):
        predict.command([*words, "--top=0"])
    assert isinstance(predict.open_model(finished_lapm), Model)

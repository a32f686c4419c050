"""From archives to splits: the official layout, the built-in data, and what can be wrong."""

import contextlib
import http.server
import json
import sys
import tarfile
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from tensorflow_datasets.core.utils import gcs_utils

from fgjax.config import Augmentation
from fgjax.data import datasets, synthetic
from fgjax.data.datasets import archives, fgvc_aircraft
from fgjax.data.images import decode
from fgjax.data.loading import Reader
from fgjax.errors import UserError
from tests import fake_aircraft


def test_aircraft_from_the_official_layout(tmp_path):
    fake_aircraft.write(tmp_path / "manual")
    dataset = datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    assert dataset.class_names == fake_aircraft.VARIANTS
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert "tensorflow" not in sys.modules
    families, parent = dataset.hierarchy["family"]
    assert [families[i] for i in parent] == list(fake_aircraft.FAMILIES)
    makers, parent = dataset.hierarchy["manufacturer"]
    assert [makers[i] for i in parent] == list(fake_aircraft.MAKERS)
    # 1-based inclusive pixels on the image without its banner of 20 rows
    wanted = np.array([20 / 60, 30 / 120, 50 / 60, 90 / 120], np.float32)
    np.testing.assert_allclose(dataset.train.boxes, np.tile(wanted, (12, 1)), rtol=1e-6)
    for row in range(12):
        pixels = decode(dataset.train.source[row]["image"])
        assert pixels.shape == (80, 120, 3)
        variant = dataset.train.labels[row]
        assert pixels[35, 60].argmax() == variant % 3  # the label belongs to this image
    # The banner is cut off before anything else sees the image.
    image, _ = Reader(dataset.train, 60, Augmentation()).read(0)
    assert image[-1].mean() > 10


def test_nothing_is_asked_of_tfds_servers_and_nothing_left_behind(tmp_path, monkeypatch):
    """TFDS would look for its own copy of every dataset, by way of a folder that it forgets."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(gcs_utils, "gcs_dataset_info_files", lambda name: pytest.fail(name))
    fake_aircraft.write(tmp_path / "manual")
    datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    assert not list((tmp_path / "temporary").iterdir())


def test_preparing_twice_reads_the_same(tmp_path):
    fake_aircraft.write(tmp_path / "manual")
    first = datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    (tmp_path / "manual" / "fgvc-aircraft-2013b.tar.gz").unlink()  # not needed any more
    second = datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.train.labels, second.train.labels)


def test_a_corrupt_image_is_named_counted_and_left_out(tmp_path, caplog):
    fake_aircraft.write(tmp_path / "manual", corrupt="0001004")
    dataset = datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    assert dataset.skipped == ("0001004.jpg",)
    assert len(dataset.train) == 11
    assert "0001004.jpg" not in dataset.train.filenames
    assert "0001004.jpg" in caplog.text


def test_a_truncated_archive_is_named(tmp_path):
    path = fake_aircraft.write(tmp_path / "manual")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"fgvc-aircraft-2013b\.tar\.gz is truncated"):
        datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))


def test_another_archive_is_refused(tmp_path):
    (tmp_path / "manual").mkdir()
    other = tmp_path / "readme.txt"
    other.write_text("hello")
    with tarfile.open(tmp_path / "manual" / fgvc_aircraft.ARCHIVE, "w:gz") as tar:
        tar.add(other, "something/readme.txt")
    with pytest.raises(UserError, match="not the expected files"):
        datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))


def _member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "target"
    return info


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (_member("../outside"), "leads out"),
        (_member("inner/../../outside"), "leads out"),
        (_member("/outside"), "leads out"),
        (_member("link", tarfile.SYMTYPE), "a link"),
        (_member("hard", tarfile.LNKTYPE), "a link"),
        (_member("pipe", tarfile.FIFOTYPE), "a device"),
    ],
)
def test_a_tar_file_with_unsafe_members_is_refused(tmp_path, member, says):
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(evil, "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(UserError, match=f"is refused: its member .* {says}"):
        archives.unpack(evil, tmp_path / "in" / "folder")
    assert not (tmp_path / "in" / "outside").exists() and not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "C:/outside"])
def test_a_zip_file_with_unsafe_members_is_refused(tmp_path, name):
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(UserError, match="leads out"):
        archives.unpack(evil, tmp_path / "in" / "folder")


def test_a_link_in_a_zip_file_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        archives.unpack(tmp_path / "evil.zip", tmp_path / "folder")


def test_names_that_are_not_utf8_do_not_stop_anything(tmp_path):
    with tarfile.open(tmp_path / "old.tar", "w", encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("Fl\xfcgel.txt"))
    archives.unpack(tmp_path / "old.tar", tmp_path / "folder")
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_a_download_with_another_checksum_is_removed(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WholeHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/data.tar"
    file = archives.Official("data.tar", url, "0" * 64)
    try:
        with contextlib.ExitStack() as stack, pytest.raises(UserError, match="not the official"):
            archives.open_official("Birds", archives.Layout((file,), "birds", "x"), tmp_path, stack)
    finally:
        server.shutdown()
        server.server_close()
    assert not (tmp_path / "data.tar").exists()


def test_a_missing_archive_names_what_goes_where(tmp_path, monkeypatch):
    file = archives.Official(fgvc_aircraft.ARCHIVE, "http://127.0.0.1:9/none.tar.gz")
    monkeypatch.setattr(fgvc_aircraft, "FILES", (file,))
    with pytest.raises(UserError, match=r"put fgvc-aircraft-2013b\.tar\.gz into .*manual"):
        datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))


def test_unknown_dataset():
    with pytest.raises(UserError, match="choose one of"):
        datasets.load_dataset("imagenet")


class _RangeHandler(http.server.BaseHTTPRequestHandler):
    payload = bytes(range(256)) * 4000
    breaks = 1

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        body = self.payload[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).breaks:
            type(self).breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class _WholeHandler(_RangeHandler):
    payload, breaks = b"something else", 0


def test_a_broken_download_is_taken_up_where_it_stopped(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _RangeHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/file"
    try:
        with pytest.raises(OSError, match=r"broke|IncompleteRead"):
            archives.download(url, tmp_path / "file")
        assert not (tmp_path / "file").exists()
        assert (tmp_path / "file.partial").stat().st_size > 0
        archives.download(url, tmp_path / "file")
    finally:
        server.shutdown()
        server.server_close()
    assert (tmp_path / "file").read_bytes() == _RangeHandler.payload


def test_synthetic_dataset(tiny_dataset):
    assert tiny_dataset.num_classes == 24
    assert np.bincount(tiny_dataset.train.labels).tolist() == [4] * 24
    assert tiny_dataset.train.parts.shape == (96, 3, 4)
    assert tiny_dataset.part_names == ("nose", "wing", "tail")
    assert len(tiny_dataset.hierarchy["family"][0]) == 6


def test_renderer_is_deterministic_and_splits_differ():
    one, box, parts = synthetic.render(3, 1, split="train")
    again, _, _ = synthetic.render(3, 1, split="train")
    other, _, _ = synthetic.render(3, 1, split="test")
    np.testing.assert_array_equal(one, again)
    assert np.abs(one.astype(int) - other).mean() > 5
    assert one.shape == (128, 128, 3) and one.dtype == np.uint8
    assert (parts[:, :2] >= box[:2] - 1e-6).all() and (parts[:, 2:] <= box[2:] + 1e-6).all()


def test_near_variants_differ_in_one_part_alone():
    """Without nuisance two sisters' pictures differ inside the deciding part's box only."""
    for label in range(24):
        base = label - label % 4
        part = synthetic.deciding_part(base, label)
        assert (part is None) == (label == base)
        if part is None:
            continue
        shapes = [synthetic._outlines(synthetic.designs()[k]) for k in (base, label)]
        names = {0: {"nose"}, 1: {"wing", "engines"}, 2: {"tail"}}[part]
        for name in shapes[0]:
            same = len(shapes[0][name]) == len(shapes[1][name]) and all(
                np.array_equal(a, b) for a, b in zip(shapes[0][name], shapes[1][name])
            )
            assert same or name in names
    assert synthetic.deciding_part(0, 4) is None


def test_true_boxes_enclose_what_was_drawn():
    """The nose's box is at the left end and the tail's at the right of the object's."""
    for label in range(0, 24, 5):
        _, box, parts = synthetic.render(label, 0)
        nose, wing, tail = parts
        assert nose[1] == pytest.approx(box[1], abs=0.03)
        assert tail[3] == pytest.approx(box[3], abs=0.06)
        assert nose[3] < tail[1]
        assert nose[1] < wing[1] < tail[3]


def test_json_of_skipped_images_is_written(tmp_path):
    fake_aircraft.write(tmp_path / "manual")
    datasets.load_dataset("fgvc_aircraft/subset", data_dir=str(tmp_path))
    found = list(tmp_path.rglob("*skipped-train.json"))
    assert len(found) == 1 and json.loads(found[0].read_text()) == []

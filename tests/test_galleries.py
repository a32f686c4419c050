"""Galleries: what is added is found, whatever others do meanwhile and wherever one dies."""

import errno
import functools
import json
import multiprocessing
import shutil
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax import search
from fgjax.errors import UserError
from fgjax.galleries import Entry, Snapshot, Store, faiss_files, store

D = 8


def unit(rows, seed=0):
    found = np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def entry(number):
    return Entry(f"{number}.jpg", f"digest-{number}")


VECTORS = unit(200)


def add(gallery, numbers):
    return gallery.add(VECTORS[list(numbers)], [entry(n) for n in numbers])


def held(gallery):
    """{digest: embedding}."""
    snapshot = gallery.open()
    vectors = np.concatenate(list(snapshot.blocks())) if len(snapshot) else np.zeros((0, D))
    return {e.digest: v for e, v in zip(snapshot.entries, vectors, strict=True)}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove"]), st.sets(st.integers(0, 29), max_size=12)),
        max_size=8,
    )
)
def test_it_holds_what_was_added_less_what_was_removed(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("gallery")
    gallery, wanted = Store(folder / "g", "model"), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "MOST", 7)  # several segments
        add(gallery, [40])
        for what, numbers in steps:
            numbers = sorted(numbers)
            if what == "add":
                assert add(gallery, numbers) == len(set(numbers) - wanted)
                wanted |= set(numbers)
            else:
                gone = gallery.remove([entry(n).digest for n in numbers])
                assert gone == len(set(numbers) & wanted)
                wanted -= set(numbers)
            found = held(gallery)
            assert set(found) == {entry(n).digest for n in wanted | {40}}
            for n in wanted:
                np.testing.assert_array_equal(found[entry(n).digest], VECTORS[n])
    on_disk = {path.stem.partition("-")[2] for path in (folder / "g").glob("vectors-*")}
    assert on_disk == set(json.loads((folder / "g" / "manifest.json").read_text())["segments"])


def test_search_is_exact_over_all_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST", 16)
    gallery = Store(tmp_path / "g", "model")
    for begin in range(0, 100, 10):
        add(gallery, range(begin, begin + 10))
    queries = unit(5, seed=1)
    found = gallery.open().search(queries, 7)
    scores = queries.astype(np.float64) @ VECTORS[:100].T.astype(np.float64)
    for row, matches in enumerate(found):
        order = np.argsort(-scores[row], kind="stable")[:7]
        assert [m.entry.digest for m in matches] == [entry(n).digest for n in order]
        assert [m.score for m in matches] == pytest.approx(scores[row][order], abs=1e-5)
    assert len(gallery.open().search(queries, 500)[0]) == 100
    assert Snapshot([], []).search(queries, 3) == [[]] * 5


def test_pairs_that_are_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST", 4)
    vectors = unit(10, seed=3)
    near = vectors[2] + 0.01 * vectors[3]
    vectors[7] = near / np.linalg.norm(near)
    gallery = Store(tmp_path / "g", "model")
    gallery.add(vectors, [entry(n) for n in range(10)])
    ((one, other, score),) = gallery.open().alike(0.999)
    assert (one, other) == (entry(2), entry(7)) and score == pytest.approx(0.99995, abs=1e-4)
    assert len(gallery.open().alike(-1)) == 45  # all pairs, once


def test_a_snapshot_stays_what_it_was(tmp_path):
    gallery = Store(tmp_path / "g", "model")
    add(gallery, range(10))
    before = gallery.open()
    gallery.remove(["3.jpg"])
    add(gallery, range(10, 20))
    assert [e.file for e in before.entries] == [f"{n}.jpg" for n in range(10)]
    np.testing.assert_array_equal(np.concatenate(list(before.blocks())), VECTORS[:10])
    assert before.search(VECTORS[3:4], 1)[0][0].entry == entry(3)


def _add_often(folder, first):
    gallery = Store(folder, "model")
    for n in range(first, first + 20):
        gallery.add(VECTORS[[n]], [entry(n)])


@pytest.mark.slow
def test_processes_add_and_one_searches_at_the_same_time(tmp_path):
    folder = tmp_path / "g"
    add(Store(folder, "model"), [199])
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add_often, args=(folder, n)) for n in (0, 20)]
    for other in others:
        other.start()
    sizes = [1]
    while any(other.is_alive() for other in others):
        snapshot = Store(folder, "model").open()
        assert sum(len(block) for block in snapshot.blocks()) == len(snapshot)
        sizes.append(len(snapshot))
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert sizes == sorted(sizes)
    assert set(held(Store(folder, "model"))) == {entry(n).digest for n in (*range(40), 199)}


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_full_disk_leaves_it_as_it_was(tmp_path, monkeypatch, fails_at):
    gallery = Store(tmp_path / "g", "model")
    add(gallery, range(5))
    files, before = sorted(p.name for p in gallery.folder.iterdir()), held(gallery)
    calls = []

    def fsync(_):
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", fsync)
    with pytest.raises(UserError, match=r"the disk is full.*as it was before"):
        add(gallery, range(5, 9))
    assert held(gallery).keys() == before.keys()
    assert sorted(p.name for p in gallery.folder.iterdir()) == files


def test_what_a_dead_process_left_is_swept_away(tmp_path):
    gallery = Store(tmp_path / "g", "model")
    add(gallery, range(5))
    for name in ("vectors-dead.npy", "entries-dead.json", "vectors-half.npy.77.part"):
        (gallery.folder / name).write_bytes(b"x")
    add(gallery, range(5, 6))
    assert not list(gallery.folder.glob("*dead*")) and not list(gallery.folder.glob("*.part"))
    assert len(held(gallery)) == 6


def test_refusals(tmp_path):
    gallery = Store(tmp_path / "g", "model")
    with pytest.raises(UserError, match="there is no index"):
        gallery.open()
    with pytest.raises(UserError, match="there is no index"):
        gallery.remove(["x"])
    add(gallery, range(3))
    with pytest.raises(UserError, match="was made by another model"):
        Store(gallery.folder, "other").open()
    with pytest.raises(UserError, match="of 8 dimensions, not 4"):
        gallery.add(np.ones((1, 4)), [Entry("a", "b")])
    manifest = json.loads((gallery.folder / "manifest.json").read_text())
    damaged = tmp_path / "damaged"
    shutil.copytree(gallery.folder, damaged)
    (damaged / f"vectors-{manifest['segments'][0]}.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="is damaged"):
        Store(damaged, "model").open()
    (damaged / f"vectors-{manifest['segments'][0]}.npy").unlink()
    with pytest.raises(UserError, match="is damaged"):
        Store(damaged, "model").open()
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(UserError, match="of format 2"):
        Store(damaged, "model").open()


# faiss


def test_an_exported_index_is_the_gallery(tmp_path):
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery = Store(tmp_path / "gallery", "model")
    entries = [Entry(f"é{n}.jpg", f"{n:064x}", f"class {n % 7}") for n in range(3000)]
    gallery.add(vectors, entries)
    gallery.remove([entries[5].digest])
    snapshot = gallery.open()
    for kind, least in (("flat", 1.0), ("hnsw", 0.9)):
        out = tmp_path / "new" / f"{kind}.faiss"
        found = faiss_files.write(snapshot, out, kind=kind)
        assert least <= found <= 1.0
        index = faiss.read_index(str(out))
        lines = [
            json.loads(line)
            for line in out.with_name(f"{kind}.faiss.jsonl").read_text("utf-8").splitlines()
        ]
        assert index.ntotal == len(lines) == 2999
        _, rows = index.search(vectors[100:101], 1)
        assert lines[rows[0, 0]] == entries[100]._asdict()
    assert 0.05 < faiss_files.recall(snapshot, Halved(index)) < 0.9


class Halved:
    """An index that forgets the second half of what it finds."""

    def __init__(self, index):
        self.index = index

    def search(self, queries, count):
        scores, rows = self.index.search(queries, count)
        rows[:, count // 2 :] = -1
        return scores, rows


def test_exports_that_cannot_be(tmp_path, monkeypatch):
    gallery = Store(tmp_path / "gallery", "model")
    gallery.add(np.eye(3, dtype=np.float32), [Entry(str(n), str(n)) for n in range(3)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another --out"):
        faiss_files.write(gallery.open(), tmp_path / "file" / "a.faiss")
    gallery.remove([str(n) for n in range(3)])
    with pytest.raises(UserError, match="the index is empty"):
        faiss_files.write(gallery.open(), tmp_path / "a.faiss")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r'pip install "fgjax\[faiss\]"'):
        faiss_files.write(gallery.open(), tmp_path / "a.faiss")


# The command


@pytest.mark.usefixtures("relaxed")
def test_a_runs_index_grows_shrinks_and_finds_copies(
    finished_probe, copy_of, command, tmp_path, capsys
):
    workdir, folder = copy_of(finished_probe), tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    last = cv2.imread(str(folder / "3.png"))
    (folder / "again.bmp").write_bytes(cv2.imencode(".bmp", last)[1].tobytes())
    index = functools.partial(command, "index")
    words = (f"--workdir={workdir}", "--json")
    index("add", *words, str(folder / "0.png"), str(folder / "1.png"))
    embedded = search.embed_files

    def counted(run, paths, **options):
        found = embedded(run, paths, **options)
        assert len(found[1]) == 3  # the two that are there are passed over
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "embed_files", counted)
        index("add", str(folder), *words)
    capsys.readouterr()
    index("list", *words)
    assert len(json.loads(capsys.readouterr().out)) == 5
    index("duplicates", *words, "--threshold=0.99999")
    (pair,) = json.loads(capsys.readouterr().out)
    assert {pair["one"], pair["other"]} == {str(folder / n) for n in ("3.png", "again.bmp")}
    index("export", *words, f"--out={tmp_path}/images.faiss", "--kind=hnsw")
    assert "5 rows, hnsw" in capsys.readouterr().out and (tmp_path / "images.faiss").exists()
    index("remove", str(folder / "again.bmp"), *words)
    assert "1 images were taken out" in capsys.readouterr().out
    command("search", f"--workdir={workdir}", f"--query={folder}/3.png", "--json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["matches"][0]["file"] == str(folder / "3.png") and len(found["matches"]) == 4
    for wrong, says in (
        (("remove", "/nowhere"), "no image of"), (("add",), "wants images or folders"),
        (("list", "x"), "takes no paths"), (("forget", "x"), "knows no 'forget'"),
        (("export",), "wants --out=FILE"),
        (("duplicates", "--threshold=2"), r"must be in \[-1, 1\]"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            index(*wrong, *words)

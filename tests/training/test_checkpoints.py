"""Checkpoints: how many stay, what a damaged one does, and a save that fails."""

import os
import shutil
import subprocess
import sys

import jax
import pytest

from fgjax.config import Checkpoints
from fgjax.errors import UserError
from fgjax.training import checkpoints
from fgjax.training.logging import read_metrics
from tests.training.test_fit import Interrupted, assert_same, interrupting, train


def stopped(folder, at=3, **options):
    """A run of four epochs that ended before epoch `at`: steps 3, 6, …, are saved."""
    with pytest.raises(Interrupted):
        train(folder, epochs=4, before_epoch=interrupting(at), **options)


def go_on(folder):
    return train(folder, epochs=4, before_epoch=interrupting(-1))


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.is_dir())


def largest(folder, step):
    files = [p for p in (folder / "checkpoints" / str(step)).rglob("*") if p.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def truncate(folder, step):
    path = largest(folder, step)
    os.truncate(path, path.stat().st_size // 2)


def change_a_byte(folder, step):
    path = largest(folder, step)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_a_file(folder, step):
    largest(folder, step).unlink()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path, keep):
    stopped(tmp_path, saving=Checkpoints(keep=keep))
    assert steps(tmp_path) == [3, 6, 9][-keep:]


def looking(scores):
    """An evaluator of known scores, and what the network was when each was given."""
    seen = []

    def evaluate(model, epoch):
        seen.append(jax.device_get(checkpoints.model_state(model)))
        return {"held_out_top1": scores[epoch - 1], "held_out_other": -scores[epoch - 1]}

    return evaluate, seen


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.7, 0.7, 0.2), 2), ((0.9, 0.1, 0.2, 0.3), 0), ((0, 0, 0, 0), 3)]
)
def test_the_best_epoch_is_what_a_loop_ends_with(tmp_path, scores, best):
    """Of equal ones the last; it is kept, however many newer ones there are."""
    evaluate, seen = looking(scores)
    saving = Checkpoints(keep=1, evaluate_every=0)
    trained = train(tmp_path, epochs=4, evaluator=evaluate, keep_best=True, saving=saving)
    assert_same(trained, seen[best])
    assert steps(tmp_path) == sorted({3 * (best + 1), 12})
    last = train(tmp_path / "last", epochs=4, evaluator=looking(scores)[0], saving=saving)
    assert_same(last, seen[3])


def test_the_best_epoch_is_found_again_after_an_interruption(tmp_path):
    evaluate, seen = looking((0.9, 0.1, 0.2, 0.3))
    options = {"evaluator": evaluate, "keep_best": True}
    stopped(tmp_path, **options)
    assert steps(tmp_path) == [3, 6, 9]
    trained = train(tmp_path, epochs=4, before_epoch=interrupting(-1), **options)
    assert_same(trained, seen[0])
    damaged = tmp_path / "other"
    stopped(damaged, **options)
    change_a_byte(damaged, 3)
    with pytest.raises(UserError, match=r"best checkpoint in .* of step 3, is damaged: remove"):
        train(damaged, epochs=4, before_epoch=interrupting(-1), **options)


def test_a_loop_without_held_out_images_ends_with_its_last_epoch(tmp_path):
    one = train(tmp_path / "one", epochs=2, keep_best=True)
    other = train(tmp_path / "other", epochs=2)
    assert_same(one, other)


@pytest.mark.parametrize("damage", [truncate, change_a_byte, remove_a_file])
def test_of_a_damaged_one_the_one_before_is_taken(tmp_path, damage, caplog):
    whole = go_on(tmp_path / "a")
    stopped(tmp_path / "b")
    damage(tmp_path / "b", 9)
    with caplog.at_level("WARNING", logger="fgjax"):
        found = go_on(tmp_path / "b")
    assert_same(whole, found)
    assert "step 9" in caplog.text and "damaged (its bytes have changed)" in caplog.text
    assert [line["step"] for line in read_metrics(tmp_path / "b")] == [3, 6, 9, 12]


def test_without_a_digest_what_orbax_cannot_read_is_damaged(tmp_path, caplog):
    """A kill between the last rename and the digest leaves a whole checkpoint without one."""
    whole = go_on(tmp_path / "a")
    stopped(tmp_path / "b")
    (tmp_path / "b" / "checkpoints" / "digests.json").unlink()
    remove_a_file(tmp_path / "b", 9)
    assert_same(whole, go_on(tmp_path / "b"))
    assert "damaged" in caplog.text
    stopped(tmp_path / "c")
    (tmp_path / "c" / "checkpoints" / "digests.json").write_text("{")
    caplog.clear()
    assert_same(whole, go_on(tmp_path / "c"))
    assert "damaged" not in caplog.text


def test_where_all_are_damaged_the_stage_begins_anew(tmp_path):
    whole = go_on(tmp_path / "a")
    stopped(tmp_path / "b")
    for step in (6, 9):
        change_a_byte(tmp_path / "b", step)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole: remove the folder"):
        go_on(tmp_path / "b")
    assert steps(tmp_path / "b") == [6, 9]  # nothing is thrown away unasked
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    assert_same(whole, go_on(tmp_path / "b"))


def test_another_networks_is_refused_and_stays(tmp_path):
    stopped(tmp_path)
    store = checkpoints.Checkpoints(tmp_path)
    with pytest.raises(UserError, match="does not fit this run"):
        store.restore({"other": jax.numpy.zeros(3)})
    store.close()
    assert steps(tmp_path) == [6, 9]


FAILING = """
import resource, signal, sys
from fgjax.errors import UserError
from tests.training.test_fit import train

def before_epoch(model, epoch, key):
    if epoch == 2:  # files of no more than 1,000 bytes from here on
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return {"scale": 1.0}

try:
    train(__import__("pathlib").Path(sys.argv[1]), epochs=5, before_epoch=before_epoch)
except UserError as error:
    print("REFUSED", error)
    sys.exit(2)
"""


def test_a_save_that_fails_stops_the_run_and_leaves_the_one_before(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    said = done.stdout.strip().splitlines()[-1]
    assert "a file would be larger than is allowed there" in said
    assert said.endswith("start again to resume.")
    store = checkpoints.Checkpoints(tmp_path)
    assert store.latest() in (3, 6)  # it is written while the loop goes on
    store.close()
    whole = train(tmp_path / "whole", epochs=5, before_epoch=lambda *_: {"scale": 1.0})
    assert_same(whole, train(tmp_path, epochs=5, before_epoch=lambda *_: {"scale": 1.0}))

"""Several processes train as one does: every stage of every method, with what happens to them."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from fgjax import hosts
from fgjax.errors import UserError
from fgjax.training.preemption import EXIT_CODE
from tests import finished
from tests.test_devices import TOLERANCE, losses

pytestmark = pytest.mark.slow

_RUN = """
import pathlib, sys
import jax
name, data_dir, workdir, devices = sys.argv[1:5]
jax.config.update("jax_num_cpu_devices", int(devices))
from fgjax import command_line, hosts, main
from fgjax.config import override
from fgjax.training import preemption
from tests import tiny

def run():
    hosts.join(sys.argv[5], int(sys.argv[6]), int(sys.argv[7]))
    main.setup()
    preemption.install()
    config = getattr(tiny, f"{name}_config")(data_dir)
    saving = {"checkpoints.every_steps": int(sys.argv[8])} if sys.argv[8:] else {}
    main.run(override(config, saving), pathlib.Path(workdir), figures=False)

command_line.run(run)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(words, processes: int, *last: str, environment, logs: pathlib.Path, flags=False):
    """Each process in the background, with what it says in a file of its own.

    `flags`: whether they learn of each other as `fgjax train` is told.
    """
    logs.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words), *_place(address, processes, k, flags), *last],
            cwd=finished.ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=open(logs / f"{k}.txt", "w"),
        )
        for k in range(processes)
    ]  # fmt: skip


def _place(address: str, processes: int, process: int, flags: bool) -> list[str]:
    if not flags:
        return [address, str(processes), str(process)]
    return [f"--coordinator={address}", f"--processes={processes}", f"--process={process}"]


def end(started, logs: pathlib.Path, code: int = 0) -> list[str]:
    """What they said; all of them must end with that code."""
    try:
        codes = [process.wait(400) for process in started]
    finally:
        for process in started:
            process.kill()
    said = [(logs / f"{k}.txt").read_text() for k in range(len(started))]
    assert codes == [code] * len(started), "\n".join(text[-2000:] for text in said)
    return said


@pytest.fixture
def environment(shared, data_dir):
    """No proxy: gloo's ranks look for each other at addresses of their own."""
    given = finished.environment(data_dir, shared, XLA_FLAGS=finished.HASTY)
    return {name: value for name, value in given.items() if not name.lower().endswith("_proxy")}


def compare(folder: pathlib.Path, wanted: pathlib.Path) -> None:
    """Losses of every loop, and what all stages that answer say."""
    found, expected = losses(folder), losses(wanted)
    assert found.keys() == expected.keys()
    for loop, values in expected.items():
        np.testing.assert_allclose(found[loop], values, rtol=TOLERANCE, err_msg=loop)
    for name, array in (("predictions", "logits"), ("after", "embeddings")):
        for path in wanted.glob(f"*/{name}.npz"):
            same_arrays(array, folder / path.relative_to(wanted), path)


def same_arrays(name: str, *paths: pathlib.Path) -> None:
    """To what another order of sums does."""
    found, wanted = (np.load(path)[name] for path in paths)
    np.testing.assert_allclose(found, wanted, atol=20 * TOLERANCE)


@pytest.mark.parametrize("name", ["recognition", "probe"])
def test_two_processes_of_two_devices_train_as_one_of_four(
    name, request, environment, data_dir, tmp_path
):
    one = request.getfixturevalue(f"finished_{name}")
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words = ("-c", _RUN, name, data_dir, folder, 2)
    said = end(start(words, 2, environment=environment, logs=logs), logs)
    compare(folder, one)
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["processes"] == 2 and results["protocol"]["devices"] == 4
    assert "test images of" in said[0] and "test images of" not in said[1]  # the first one speaks


def test_a_command_on_two_hosts_does_what_it_does_on_one(
    finished_lapm, shared, environment, data_dir, tmp_path
):
    """LAPM by `fgjax train`, pictures and report included, on two devices of two processes."""
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words = ("train.py", finished.DEMO, *finished.TINY, f"--workdir={folder}")
    said = end(start(words, 2, environment=environment, logs=logs, flags=True), logs)
    compare(folder, finished_lapm)
    assert "report: " in said[0] and "report: " not in said[1]
    for name in ("figures/mixing.webp", "report.html", "results.json", "config.json"):
        assert (folder / name).stat().st_size > 0


def test_four_processes_train_as_one(finished_hdcl, environment, data_dir, tmp_path):
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words = ("-c", _RUN, "hdcl", data_dir, folder, 1)
    end(start(words, 4, environment=environment, logs=logs), logs)
    compare(folder, finished_hdcl)


def until(condition, seconds: float = 300) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize(("first", "asked", "then"), [(2, 0, 2), (2, 1, 1), (1, 0, 2)])
def test_one_that_is_asked_to_end_ends_all_and_all_go_on(
    first, asked, then, finished_hdcl, environment, data_dir, tmp_path
):
    """SIGTERM at one of them: all save the same step, and the same words go on there.

    So does another number of processes with the same devices.
    """
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words = ("-c", _RUN, "hdcl", data_dir, folder)
    all_of_them = start((*words, 4 // first), first, "1", environment=environment, logs=logs)
    until(lambda: list(folder.glob("*/checkpoints/[0-9]*")))
    all_of_them[asked].send_signal(signal.SIGTERM)
    said = end(all_of_them, logs, EXIT_CODE)
    assert "is saved at step" in said[0]
    last = start((*words, 4 // then), then, "1", environment=environment, logs=logs)
    assert "resumes at step" in end(last, logs)[0]
    same_arrays(
        "embeddings", *(path / "embedding" / "after.npz" for path in (folder, finished_hdcl))
    )


@pytest.mark.parametrize("name", ["lapm", "ghns", "hdcl", "ccfr"])
def test_killed_in_every_loop_they_end_where_one_does(
    name, request, environment, data_dir, tmp_path
):
    """SIGKILL to both after the first step of each loop, and once more the same words.

    What two processes do undisturbed, too: the other methods' own test would add nothing.
    """
    one = request.getfixturevalue(f"finished_{name}")
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words, last, flags = ("-c", _RUN, name, data_dir, folder, 2), ("1",), name == "lapm"
    if flags:
        words = ("train.py", finished.DEMO, *finished.TINY, f"--workdir={folder}")
        last = ("--config.checkpoints.every_steps=1",)
    killed: set[str] = set()

    def begun() -> set[str]:
        try:
            folders = [p for at in ("*", "*/*") for p in folder.glob(f"{at}/checkpoints")]
            saved = [path for path in folders if list(path.glob("[0-9]*"))]
        except FileNotFoundError:  # a loop that ends takes its checkpoints away
            return set()
        return {str(path.parent.relative_to(folder)) for path in saved} - killed

    while True:
        both, new = start(words, 2, *last, environment=environment, logs=logs, flags=flags), set()

        def moved(both=both, new=new) -> bool:
            new |= begun()
            return bool(new) or any(process.poll() is not None for process in both)

        until(moved)
        if not new:
            break
        killed |= new
        for process in both:
            process.kill()
            process.wait()
    end(both, logs)
    compare(folder, one)
    assert killed == losses(one).keys()


def test_where_one_is_killed_the_other_stops_and_both_go_on(
    finished_hdcl, environment, data_dir, tmp_path
):
    folder, logs = tmp_path / "run", tmp_path / "logs"
    words = ("-c", _RUN, "hdcl", data_dir, folder, 2)
    both = start(words, 2, "1", environment=environment, logs=logs)
    until(lambda: list(folder.glob("*/checkpoints/[0-9]*")))
    both[1].kill()
    began = time.monotonic()
    try:
        assert both[0].wait(120) != 0
    finally:
        both[0].kill()
    assert time.monotonic() - began < 70  # silence of 50 seconds, and what is on its way
    assert not (folder / "results.json").exists()
    end(start(words, 2, "1", environment=environment, logs=logs), logs)
    same_arrays(
        "embeddings", *(path / "embedding" / "after.npz" for path in (folder, finished_hdcl))
    )


def test_what_the_first_one_meets_is_said_once(environment, data_dir, tmp_path):
    """A workdir of another config: one sentence, and nobody waits for the one who said it."""
    folder, logs = tmp_path / "run", tmp_path / "logs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": 7}))
    words = ("-c", _RUN, "hdcl", data_dir, folder, 2)
    said = end(start(words, 2, environment=environment, logs=logs), logs, 2)
    assert "holds a run of another config" in said[0] and said[0].count("error:") == 1
    assert "error:" not in said[1] and "Traceback" not in said[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--processes=2"], "--coordinator, --processes and --process go together"),
     (["--coordinator=here", "--processes=2", "--process=0"], "must be HOST:PORT"),
     (["--coordinator=127.0.0.1:1", "--processes=2", "--process=2"], "must be in 0 … 1"),
     (["--coordinator=127.0.0.1:1", "--processes=0", "--process=0"], "must be 1 or more"),
     (["--coordinator=nowhere.invalid:1", "--processes=2", "--process=0"], "there is no such host"),
     (["--coordinator=127.0.0.1:99999", "--processes=2", "--process=1"], "must be HOST:PORT")],
)  # fmt: skip
def test_words_that_meet_nobody_are_refused(words, says, environment, tmp_path):
    words = ("train.py", finished.DEMO, f"--workdir={tmp_path / 'run'}", *words)
    done = finished.run(*words, environment=environment, code=2)
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_where_nobody_listens_a_process_says_so(monkeypatch):
    monkeypatch.setattr(hosts, "_SECONDS_TO_MEET", 0.6)
    with pytest.raises(UserError, match=r"nobody listens at 127.0.0.1:.*--process=0"):
        hosts.join(f"127.0.0.1:{free_port()}", 2, 1)

"""Several processes that train one model: who is first, what all agree on, and waiting.

Every process runs the same lines. Where there is one alone, each function does the plain thing.
Answers travel through the service by which JAX's processes found each other, not over devices: some
of them wait for hours, while the first one downloads a dataset.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import orbax.checkpoint as ocp

from fgjax.errors import SharedError, UserError

T = TypeVar("T")

_WEEK = 7 * 24 * 3600 * 1000  # milliseconds
_SECONDS_OF_SILENCE = 50  # after which a process counts as gone, and the others stop
_SECONDS_TO_MEET = 240
_SECONDS_TO_HEAR = 3.0
# The number of processes, as the launchers say it to each of them.
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


class _State:
    alone = 0  # in how many `alone` blocks
    questions = itertools.count()


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def expected() -> bool:
    """Whether the environment says that this process is one of several.

    SLURM's `srun`, Open MPI's `mpirun`, JAX_COORDINATOR_ADDRESS, or the workers of a TPU pod.
    """
    several = any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHERS)
    pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return several or pod or bool(os.environ.get("JAX_COORDINATOR_ADDRESS"))


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Meet the other processes, before anything asks for a device.

    Args:
      coordinator: HOST:PORT of the first process; None: as the environment says.
      processes: how many there are; None likewise.
      process: which of them this is, from 0 on; None likewise.

    Raises:
      UserError: they cannot be met.
    """
    _check(coordinator, processes, process)
    if coordinator is not None:
        _reach(coordinator, listens=process == 0)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method=None if coordinator is None else "deactivate",
            heartbeat_timeout_seconds=_SECONDS_OF_SILENCE,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"the other processes cannot be met ({str(error).splitlines()[0]}): start the same "
            "command on every host with --coordinator=HOST:PORT of the first one, --processes=N "
            "and --process=0 … N-1, or by srun or mpirun."
        ) from error


def _together() -> bool:
    """Asks for no device, which would settle how many there are."""
    return jax.distributed.is_initialized() and not _State.alone


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    port = re.fullmatch(r".+:([0-9]{1,5})", coordinator or "host:1")
    if port is None or not 1 <= int(port[1]) <= 65535:
        raise UserError(
            f"--coordinator is {coordinator!r}, but must be HOST:PORT of the first process."
        )
    if processes is not None and processes < 1:
        raise UserError(f"--processes is {processes}, but must be 1 or more.")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise UserError(
            f"--process is {process}, but must be in 0 … {processes - 1}: there are {processes}."
        )


def _reach(coordinator: str, *, listens: bool) -> None:
    """Wait until the first process listens: JAX would end this one with a trace of its C++."""
    host, port = coordinator.rsplit(":", 1)
    until = time.monotonic() + _SECONDS_TO_MEET
    while True:
        try:
            socket.getaddrinfo(host, int(port))
            if not listens:
                socket.create_connection((host, int(port)), timeout=5).close()
            return
        except (socket.gaierror, UnicodeError, OverflowError) as error:
            raise UserError(
                f"--coordinator is {coordinator}, but there is no such host or port ({error})."
            ) from error
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"nobody listens at {coordinator} ({error}): start the same command with "
                    "--process=0 on that host."
                ) from error
            time.sleep(0.5)


def count() -> int:
    """Processes that work on the same thing."""
    return jax.process_count() if _together() else 1


def index() -> int:
    """Which of them this is."""
    return jax.process_index() if _together() else 0


def devices() -> list[Any]:
    """Of all of them."""
    return jax.devices() if _together() else jax.local_devices()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works with its own devices, and waits for nobody."""
    _State.alone += 1
    try:
        yield
    finally:
        _State.alone -= 1


def same(function: Callable[[], T]) -> T:
    """What the first process finds, in every process; the others call nothing and wait.

    Args:
      function: gives what JSON can say.

    Raises:
      UserError: the first one met it.
    """
    if count() == 1:
        return function()
    client, name = ocp.multihost.get_jax_distributed_client(), f"fgjax/{next(_State.questions)}"
    if index():
        answer = json.loads(client.blocking_key_value_get(name, _WEEK))
        if "error" in answer:
            raise SharedError(answer["error"])
        return answer["value"]
    try:
        with alone():
            value = function()
    except UserError as error:
        client.key_value_set(name, json.dumps({"error": str(error)}))
        raise
    client.key_value_set(name, json.dumps({"value": value}))
    return value


def first(function: Callable[[], object]) -> None:
    """Let the first process do something; the others wait until it is done.

    Raises:
      UserError: it met it.
    """

    def nothing() -> None:
        function()

    same(nothing)


def everyone(value: Any) -> list[Any]:
    """What each process says, in their order; JSON."""
    if count() == 1:
        return [value]
    client, name = ocp.multihost.get_jax_distributed_client(), f"fgjax/{next(_State.questions)}"
    client.key_value_set(f"{name}/{index()}", json.dumps(value))
    return [
        json.loads(client.blocking_key_value_get(f"{name}/{process}", _WEEK))
        for process in range(count())
    ]


def leave(code: int) -> NoReturn:
    """End this process with an exit code, though others may be waiting for it.

    An orderly end would wait for them in turn. They see that it is gone, and stop.
    """
    if count() > 1 and code:
        if not index():  # others hear through this process what happened: it goes last
            time.sleep(_SECONDS_TO_HEAR)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)

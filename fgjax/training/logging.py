"""Metrics to JSON lines, further writers and a progress bar."""

import json
import logging
import pathlib
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from fgjax import hosts
from fgjax.training import writers

log = logging.getLogger(__name__)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All lines of a stage's metrics.jsonl, oldest first."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


class MetricsWriter:
    """Writes a stage's metrics; on resuming, forgets what was written after the resumed step.

    `writing` names the writers besides `metrics.jsonl`, as `config.writers`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        resumed_step: int,
        total_steps: int,
        title: str,
        writing: str = "tensorboard",
    ):
        self._active = not hosts.index()
        self._bar = None
        if not self._active:
            return
        kept = [line for line in read_metrics(folder) if line["step"] <= resumed_step]
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "metrics.jsonl", "w")  # noqa: SIM115
        for line in kept:
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._others = writers.make(writing, folder, title, resumed_step)
        self._bar = tqdm(
            total=total_steps, initial=resumed_step, desc=title, unit="step",
            mininterval=1.0, dynamic_ncols=True,
        )  # fmt: skip
        self._started = time.monotonic()

    def advance(self, steps: int, **shown: str) -> None:
        """Move the progress bar."""
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(steps)

    def write(self, step: int, epoch: int, metrics: dict[str, Any]) -> None:
        """Append one line, and hand its finite numbers to the other writers."""
        if not self._active:
            return
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
        self._file.flush()
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        for writer in self._others:
            writer.write(step, epoch, finite)

    def close(self) -> None:
        """Flush and close everything."""
        if self._bar is not None:
            self._bar.close()
            self._file.close()
            for writer in self._others:
                writer.close()

"""What a real run does, counted where it happens: for tests that say beforehand what it will do."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from fgjax.training import fit, forward
from fgjax.training import run as runs


@contextlib.contextmanager
def counting() -> Iterator[dict[str, dict[str, int]]]:
    """{stage: {"steps", "trained_images", "evaluated_images"}} of all that is trained inside."""
    counts: dict[str, dict[str, int]] = {}
    current: list[str] = []
    stage_of, make_step = runs.Run.stage, fit.make_step
    evaluation_batches = forward.evaluation_batches

    def add(name: str, number: int) -> None:
        counts[current[-1]][name] += number

    def images(batch: dict[str, Any], rows: int) -> int:
        """`rows` times the images of each."""
        return rows * int(np.prod(batch["image"].shape[1:-3])) if "image" in batch else 0

    def stage(run, name, *settings, **options):
        found = stage_of(run, name, *settings, **options)
        counts.setdefault(name, {"steps": 0, "trained_images": 0, "evaluated_images": 0})
        current.append(name)
        return found

    def counted_step(*arguments, **options):
        step = make_step(*arguments, **options)

        def call(state, statistics, batch, number):
            add("steps", 1)
            add("trained_images", images(batch, len(batch["label"])))
            return step(state, statistics, batch, number)

        call.programs = step.programs
        return call

    def counted_batches(*arguments, **options):
        for batch, rows in evaluation_batches(*arguments, **options):
            add("evaluated_images", images(batch, len(rows)))
            yield batch, rows

    with (
        mock.patch.object(runs.Run, "stage", stage),
        mock.patch.object(fit, "make_step", counted_step),
        mock.patch.object(forward, "evaluation_batches", counted_batches),
    ):
        yield counts

"""A pytest plugin for mutants: the quickest tests first, examples drawn once and never shrunk."""

import json
import pathlib

import hypothesis
import pytest

STATISTICS = pathlib.Path("mutmut-stats.json")  # mutmut runs pytest in its own folder


def pytest_configure():
    """Before any test module is imported, as `@settings` copies what it is not given."""
    hypothesis.settings.register_profile(
        "mutation",
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        derandomize=True,
        database=None,
    )
    hypothesis.settings.load_profile("mutation")


def pytest_collection_modifyitems(items):
    """By what each test took under mutmut's own look at the suite."""
    if STATISTICS.exists():
        took = json.loads(STATISTICS.read_text())["duration_by_test"]
        items.sort(key=lambda item: took.get(item.nodeid, 0.0))


def pytest_collection_finish(session):
    """A mutant is a fork of the process that collected: XLA's threads would be missing in it."""
    from jax._src import xla_bridge  # not before tests/conftest.py has set JAX up

    if session.config.option.collectonly and xla_bridge.backends_are_initialized():
        raise pytest.UsageError("a test module computes with JAX while it is imported")

"""A pytest plugin for mutants: the quickest tests first, examples drawn once and never shrunk."""

import json
import pathlib

import hypothesis

STATISTICS = pathlib.Path("mutmut-stats.json")  # mutmut runs pytest in its own folder

# Registered before any test module is imported, as `@settings` copies what it is not given.
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

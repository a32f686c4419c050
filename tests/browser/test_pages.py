"""What people see, in a real browser: the page of `fgjax serve`, and reports.

CI installs Debian's chromium and requirements-browser.txt for them. With FGJAX_SCREENSHOTS=FOLDER
they leave pictures to look at.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fgjax import compare, main, opening
from fgjax.report import page as report
from fgjax.report import study
from tests import finished
from tests.test_model_files import exported, image_files_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM or not importlib.util.find_spec("playwright"),
        reason="apt-get install chromium, pip install -r requirements-browser.txt",
    ),
]
# The browser asks its makers' servers for nothing.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)


@pytest.fixture
def page(browser):
    opened = browser.new_page()
    opened.errors = []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("console", lambda message: message.type == "error"
              and opened.errors.append(message.text))  # fmt: skip
    yield opened
    assert not opened.errors
    opened.close()


def picture_of(page, name: str) -> None:
    if folder := os.environ.get("FGJAX_SCREENSHOTS"):
        page.screenshot(path=pathlib.Path(folder) / f"{name}.png", full_page=True)


def nothing_serious(page) -> None:
    """By axe, in light and dark; and nothing is cut off on a phone."""
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"], f"{wide} pixels on a phone"
    page.set_viewport_size({"width": 1280, "height": 900})


@contextlib.contextmanager
def served(shared, *words):
    """The address of `fgjax serve WORDS`, in a process of its own."""
    environment = finished.environment("/nowhere", shared, XLA_FLAGS=finished.HASTY)
    command = [sys.executable, "-m", "fgjax", "serve", *map(str, words), "--port=0"]
    process = subprocess.Popen(
        command, cwd=finished.ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait(20)


def explain(page, card, said):
    """By the keyboard alone."""
    button = card.get_by_role("button", name="What does it rest on?")
    button.focus()
    page.keyboard.press("Enter")
    card.get_by_text(said).wait_for()
    return button


def test_a_friend_drops_a_photograph_onto_the_page(page, shared, finished_probe, tmp_path):
    """Of a model file alone: classes, what the answer rests on, and what is no photograph."""
    model = exported(shared, finished_probe)
    run = main.open_run(finished_probe)
    files = image_files_of(run, 2)
    (tmp_path / "first.jpg").write_bytes(files[0])
    (tmp_path / "second.jpg").write_bytes(files[1])
    (tmp_path / "notes.jpg").write_text("no photograph")
    with served(shared, f"--model={model}") as address:
        page.goto(address)
        page.get_by_text(f"Knows {len(run.dataset.class_names)} classes.").wait_for()
        names = ("first.jpg", "second.jpg", "notes.jpg")
        page.set_input_files("#files", [tmp_path / name for name in names])
        page.get_by_text("Done: 3 photographs.").wait_for()
        cards = page.locator(".card")
        assert cards.count() == 3
        (wanted,) = opening.open_model(model).predict(files[:1])
        best = run.dataset.class_names[wanted.probabilities.argmax()]
        first = cards.nth(0)
        assert first.locator(".classes .name").first.inner_text() == best
        assert "is no image that can be read" in cards.nth(2).inner_text()
        explain(page, first, re.compile("stays nearly as likely|rests on: most of all the"))
        squares = np.full((7, 7), 0.1)
        squares[0, 6] = 0.5
        answer = {"file": "x", "error": None, "class": "F1", "squares": squares.tolist(),
                  "where": "top right"}  # fmt: skip
        page.route("**/api/explain", lambda route: route.fulfill(json=answer))
        second = cards.nth(1)
        button = explain(page, second, "Bright is what “F1” rests on: most of all the top right")
        shares = second.locator(".veil rect").evaluate_all(
            "found => found.map(one => Number(one.getAttribute('fill-opacity')))"
        )
        np.testing.assert_allclose(
            np.reshape(shares, (7, 7)), 0.75 * (1 - squares / 0.5), atol=1e-3
        )
        assert button.get_attribute("aria-pressed") == "true"
        picture_of(page, "serve")
        button.click()
        assert not second.locator(".veil").is_visible()
        nothing_serious(page)
        page.set_viewport_size(PHONE)
        picture_of(page, "serve-phone")


@pytest.mark.parametrize("name", ["lapm", "ghns", "hdcl", "ccfr", "probe"])
def test_a_report_can_be_read_by_anyone(name, page, request):
    workdir = request.getfixturevalue(f"finished_{name}")
    page.goto(f"file://{workdir / 'report.html'}")
    assert page.locator("h1").count() == 1
    nothing_serious(page)
    broken = page.evaluate(
        "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.alt)"
    )
    assert not broken
    asked = page.evaluate("performance.getEntriesByType('resource').map(r => r.name)")
    assert not [one for one in asked if not one.startswith(("data:", "file:"))]
    picture_of(page, f"report-{name}")


def test_tables_of_runs_and_studies_can_be_read_by_anyone(page, finished_probe, copy_of, tmp_path):
    sides = compare.compare([finished_probe, copy_of(finished_probe)])
    report.write(tmp_path / "compare.html", "compare.html", title="Runs", sides=sides)
    lines = [study.Line("one", (80.0, 82.0, 84.0)), study.Line("two", (81.0, 84.0, 84.0))]
    written = study.write(tmp_path, title="A study", source="a paper", metric="top1", columns=[],
                          lines=lines, command="fgjax study aircraft:demo table5")  # fmt: skip
    for path in (tmp_path / "compare.html", written):
        page.goto(f"file://{path}")
        nothing_serious(page)
        picture_of(page, path.stem)

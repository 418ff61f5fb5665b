"""Chromium for the browser tests: found on this machine, never downloaded, never let out to the network."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "widgets")]  # our helper modules

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]


def _unavailable(reason):
    """Skip on a laptop without a browser; on CI a browser is part of the deal."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this does not skip)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium():
    """Path of a Chromium or Chrome executable."""
    names = [os.environ.get("CHROMIUM"), "/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"]
    found = next((path for path in map(shutil.which, filter(None, names)) if path), None)
    return found or _unavailable("no Chromium found; install chromium or set $CHROMIUM")


@pytest.fixture(scope="session")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A fresh page that records what it complains about (`page.complaints`) and every address it asks for
    beyond `page.allowed` (`page.blocked`, refused)."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.complaints, page.blocked, page.allowed = [], [], ("data:", "blob:", "about:")
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(f"pageerror {error}"))

    def guard(route):
        if route.request.url.startswith(page.allowed):
            route.continue_()
        else:
            page.blocked.append(route.request.url)
            route.abort()

    page.route("**/*", guard)
    yield page
    context.close()


@pytest.fixture
def mount(page):
    """mount(data, **traits) shows the graph view in a bare page, see `stub_kernel`."""
    from stub_kernel import show

    yield lambda data=None, **traits: show(page, data, **traits)
    assert page.complaints == [] and page.blocked == []

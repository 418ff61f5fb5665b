"""LIT in a browser, offline: what a reader of the page sees of a model that knows its facts."""

import re

import pytest
from playwright.sync_api import expect

import interp_kit as ik

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def model():
    return ik.load_model("pocket")


@pytest.fixture(scope="module")
def server(lit, model):
    with ik.open_lit(model, [PROMPT, "The capital of Texas is"]) as server:
        yield server


def opened(page, server):
    page.allowed = (server.url, "data:", "blob:")
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.goto(server.url)
    return page


def test_the_page(page, server, model):
    opened(page, server)
    page.locator("lit-app").wait_for(timeout=60_000)
    page.wait_for_timeout(15000)
    page.screenshot(path="/tmp/lit_read/page.png")

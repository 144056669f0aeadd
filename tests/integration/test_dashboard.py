"""The dashboard as people see it: in real Chromium where there is one on PATH, and in any case over HTTP.

The browser's tests need Chromium itself, which pip cannot install; where it is missing they are not collected, and the
same pages are still fetched and read over HTTP below.
"""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from waiting import PATIENCE

sys.path.insert(0, str(Path(__file__).parent))  # the shop and the browser are imported by name

from chromium import Tab, browser, chromium
from dashboard_shop import live_a_day, open_shop, served, train_twice

from tidemill.project import Project

pytestmark = pytest.mark.slow

PAGES = {
    "": ("shop", "simulated clock", "Parity", "version 2", "Redis answers."),
    "features": ("visits", "mean_visit", "Look up an entity", "How long a customer stayed <b>lately</b>."),
    "models": ("late", "champion", "Roll back to version 1", "Tested on"),
    "monitoring": ("Parity", "0 unexplained", "Drift", "Predictions and outcomes"),
    "runs": ("Timeline", "succeeded", "Newest runs"),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, str]]:
    """A shop with a day of predictions behind it, and the address of its API."""
    project = open_shop(tmp_path_factory.mktemp("shop"))
    train_twice(project)
    with served(project) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:
        live_a_day(project, client)
        yield project, address
    project.close()


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_what_there_is(shop, page):
    answer = httpx.get(f"{shop[1]}/dashboard/{page}", timeout=PATIENCE)
    assert answer.status_code == 200
    text = html.unescape(answer.text.encode().decode("unicode_escape", errors="ignore"))
    for expected in PAGES[page]:
        assert expected in html.unescape(text)
    assert "<b>lately</b>" not in answer.text


def test_a_page_that_does_not_exist_is_no_page(shop):
    answer = httpx.get(f"{shop[1]}/dashboard/nowhere", timeout=PATIENCE)
    assert answer.status_code == 404
    assert "There is nothing at <code>/dashboard/nowhere</code>" in answer.text
    assert "href='/dashboard/models'" in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_whose_it_is_and_what_time_it_is_there(shop, page):
    text = html.unescape(httpx.get(f"{shop[1]}/dashboard/{page}", timeout=PATIENCE).text)
    assert "1 Feb 2024, 00:00 UTC" in text
    assert "simulated" in text


def test_no_button_offers_twice_what_comes_to_the_same(shop):
    text = httpx.get(f"{shop[1]}/dashboard/models", timeout=PATIENCE).text
    assert "Roll back to version 1" in text
    assert "Promote version 1" not in text


def test_the_page_of_the_api_needs_nothing_from_elsewhere_and_the_root_leads_to_the_dashboard(shop):
    page = httpx.get(f"{shop[1]}/docs", timeout=PATIENCE)
    assert page.status_code == 200
    assert "openapi.json" in page.text
    assert "https://" not in page.text
    assert httpx.get(f"{shop[1]}/", timeout=PATIENCE).headers["location"] == "/dashboard/"


def test_the_pages_do_not_get_in_the_way_of_predictions(shop):
    row = {"rows": [{"customer": 1, "order": "another"}]}
    with httpx.Client(base_url=shop[1], timeout=PATIENCE) as client:
        for page in PAGES:
            client.get(f"/dashboard/{page}").raise_for_status()
            assert client.post("/v1/models/late/predict", json=row).status_code == 200


def test_an_empty_project_says_what_to_do_and_a_token_guards_every_page(tmp_path):
    project = open_shop(tmp_path)
    secrets = {"TIDEMILL_API_TOKEN": "open-sesame", "TIDEMILL_ADMIN_TOKEN": "very-secret"}
    with served(project, **secrets) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:
        for page in PAGES:
            refused = client.get(f"/dashboard/{page}")
            assert refused.status_code == 401
            assert any(value.startswith("Basic") for value in refused.headers.get_list("www-authenticate"))
            shown = client.get(f"/dashboard/{page}", auth=("anybody", "open-sesame"))
            assert shown.status_code == 200
            assert not any(secret in shown.text for secret in secrets.values())
        assert "tidemill verify" in client.get("/dashboard/", auth=("anybody", "open-sesame")).text
        assert "tidemill train late" in client.get("/dashboard/models", auth=("anybody", "open-sesame")).text
        assert client.get("/dashboard/_nicegui_ws/socket.io/?EIO=4&transport=polling").status_code == 401
    project.close()


if chromium() is not None:

    @pytest.fixture
    def tab(tmp_path: Path) -> Iterator[Tab]:
        with browser(str(chromium()), tmp_path / "profile") as opened:
            yield opened

    @pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
    def test_every_page_fits_its_screen_and_complains_of_nothing(shop, tab, width, dark):
        tab.resize(width, 800, dark=dark)
        for page in PAGES:
            tab.open(f"{shop[1]}/dashboard/{page}")
            tab.until("document.querySelector('.page-head')")
            tab.until("window.socket && window.socket.connected")
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), page
            assert tab.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert tab.errors == []

    def test_an_entity_is_looked_up(shop, tab):
        tab.open(f"{shop[1]}/dashboard/features")
        tab.until("document.querySelector('input[name=customer]')")
        tab.until("window.socket && window.socket.connected")
        assert tab.evaluate("document.querySelector('input[name=customer]').placeholder") == "a whole number"
        tab.click("Look up")
        tab.until("document.querySelector('.trouble')")
        assert "Nothing is filled in." in tab.text()
        tab.fill("customer", "7")
        tab.click("Look up")
        tab.until("document.body.innerText.includes('PRESENT')")
        tab.fill("customer", "x")
        tab.click("Look up")
        tab.until("document.querySelector('.trouble')")
        assert "customer: '7x' is not a whole number." in tab.evaluate("document.querySelector('.trouble').innerText")
        assert tab.errors == []

    def test_the_page_of_the_api_shows_an_operation_and_tries_it_out(shop, tab):
        tab.open(f"{shop[1]}/docs#read_shop_v1")
        tab.until("document.querySelector('#read_shop_v1 textarea')")
        assert '"customer": 1' in tab.evaluate("document.querySelector('#read_shop_v1 textarea').value")
        assert f"curl -X POST '{shop[1]}/v1/features/shop_v1'" in tab.text()
        tab.click("Send")
        tab.until("document.querySelector('#read_shop_v1').innerText.includes('200 OK')")
        assert "mean_visit" in tab.text()
        assert tab.errors == []

    def test_a_champion_is_rolled_back_once_it_is_confirmed(shop, tab):
        project, address = shop
        tab.open(f"{address}/dashboard/models")
        tab.until("window.socket && window.socket.connected")
        tab.click("Roll back to version 1")
        tab.click("Cancel")
        tab.until_gone("Cancel")
        assert project.deployments.current("late").version == 2
        tab.click("Roll back to version 1")
        told = "Version 1 of late, the champion before, will serve within a second, in place of version 2."
        tab.until(f"document.body.innerText.includes({told!r})")
        tab.click("Roll back")
        tab.until_said("went back to the champion before")
        assert project.deployments.current("late").version == 1
        tab.until_gone("Cancel")
        tab.click("Promote version 2")
        tab.click("Promote")
        tab.until_said("Version 2 of late serves now")
        assert project.deployments.current("late").version == 2

    def test_without_the_admin_token_nothing_can_be_changed(tmp_path, tab):
        project = open_shop(tmp_path)
        train_twice(project)
        tokens = {"TIDEMILL_API_TOKEN": "open-sesame", "TIDEMILL_ADMIN_TOKEN": "very-secret"}
        with served(project, **tokens) as address:
            for token, allowed in (("open-sesame", False), ("very-secret", True)):
                login = base64.b64encode(f"me:{token}".encode()).decode()
                tab.open(f"{address}/dashboard/models", headers={"Authorization": f"Basic {login}"})
                tab.until("document.querySelector('.section')")
                assert ("Roll back to version" in tab.text()) is allowed
                assert ("Sign in with the admin token" in tab.text()) is not allowed
        project.close()

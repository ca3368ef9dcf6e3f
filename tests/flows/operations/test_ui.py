"""A person fills in the backfill's form in Prefect's UI, in a real browser."""

import shutil
from typing import Any

import pytest

from project import Project
from served import deployment, ended, runs_of, serving
from waiting import eventually

CHROMIUM = shutil.which("chromium")
# Without these, Chromium talks to its maker's servers.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]


def fill_in(page: Any, url: str, start: str, end: str, reprocess: str) -> None:
    """Open a deployment's form, pick the days and what to reprocess."""
    page.goto(url)
    for day in (start, end):
        page.get_by_text("Select date").first.click()
        page.locator("input[type=date]").fill(day)
        page.get_by_role("button", name="Apply").click()
    page.locator("button", has_text="missing").focus()  # a click opens the list and shuts it again
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name=reprocess).click()


@pytest.mark.heavy
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_backfill_started_by_clicking(project: Project, prefect: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="nightshift[ui] is missing")
    project.fill()
    project.register()
    with serving(project, prefect):
        found = eventually(lambda: deployment(prefect, "backfill/orders").get("id"))
        earlier = {run["id"] for run in runs_of(prefect, found)}
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1200, "height": 1500})
            url = f"{prefect.removesuffix('/api')}/deployments/deployment/{found}/run"
            fill_in(page, url, "2024-03-01", "2024-03-02", "all")
            page.get_by_role("button", name="Submit").click()
            page.get_by_text("scheduled").first.wait_for()
            browser.close()
        (run,) = [run for run in runs_of(prefect, found) if run["id"] not in earlier]
        assert ended(prefect, run["id"])["state_name"] == "Completed"
    chosen = {"start": "2024-03-01", "end": "2024-03-02", "reprocess": "all"}
    assert run["parameters"].items() >= chosen.items()
    assert project.states() == [("2024-03-01", "published"), ("2024-03-02", "published")]

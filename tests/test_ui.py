"""The UI as a user meets it: `make ui` on a converted project, then headless Chromium.

Pictures of the pages go to the folder named by NEUROLAKE_TEST_PICTURES, where one is named.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.project import ROOT, Project

CHROMIUM = shutil.which("chromium")
START_S, RUN_S = 90, 200
# Background networking would fail on a closed network, many times a second.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.spark,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def address(converted: Project) -> Iterator[str]:
    """Where the UI answers, started as the README says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (converted.folder / "ui.log").open("wb")
    server = subprocess.Popen(
        ["make", "ui", f"PORT={port}", f"DAGSTER_HOME={converted.home}"],
        cwd=ROOT,
        env=converted.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server, converted.folder / "ui.log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"the UI did not start within {START_S} s:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser.new_page(viewport={"width": 1600, "height": 2400})
        browser.close()


def take_picture(page: Page, name: str) -> None:
    folder = os.environ.get("NEUROLAKE_TEST_PICTURES")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def click_materialize(page: Page, project: Project, address: str, path: str, button: str) -> str:
    """Click it and wait for the end of the run that it starts; the run's status."""
    with project.instance() as instance:
        before = instance.get_runs_count()
        page.goto(f"{address}/{path}")
        page.get_by_role("button", name=button).first.click()
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            run = instance.get_runs(limit=1)[0]
            if instance.get_runs_count() > before and run.is_finished:
                return run.status.value
            time.sleep(0.5)
    pytest.fail(f"no run finished within {RUN_S} s")


def test_an_asset_is_materialized_from_its_page(
    page: Page, address: str, converted: Project
) -> None:
    path = "assets/ncf/flights"
    assert click_materialize(page, converted, address, path, "Materialize") == "SUCCESS"


@pytest.mark.parametrize(
    ("view", "texts"),
    [
        (
            "overview",
            ["336,776", "Departure delay in minutes", "size_ratio", "parquet/flights.carrier"],
        ),
        ("events", ["dagster/uri", "/ncf/flights", "dagster/row_count"]),
        ("checks", ["row_count", "schema", "nulls", "digest"]),
        ("lineage", ["sources", "analytics", "delays", "flights_daily"]),
    ],
    ids=["overview", "events", "checks", "lineage"],
)
def test_the_asset_page_shows(page: Page, address: str, view: str, texts: list[str]) -> None:
    page.goto(f"{address}/assets/ncf/flights?view={view}")
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible(timeout=20_000)
    take_picture(page, view)


@pytest.mark.slow
def test_all_is_materialized_from_the_asset_graph_of_the_job(
    page: Page, address: str, converted: Project
) -> None:
    path = "locations/neurolake_dagster/jobs/convert_flights"
    assert click_materialize(page, converted, address, path, "Materialize all") == "SUCCESS"
    take_picture(page, "job_graph")

"""The UI as a user meets it: `make ui`, then headless Chromium.

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

import dagster as dg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.project import ROOT, Project, make_project

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
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("ui"))


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    """Where the UI answers, started as the README says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (project.folder / "ui.log").open("wb")
    server = subprocess.Popen(
        ["make", "ui", f"PORT={port}", f"DAGSTER_HOME={project.home}"],
        cwd=ROOT,
        env=project.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server, project.folder / "ui.log")
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


def finished_run(project: Project) -> dg.DagsterRun:
    deadline = time.monotonic() + RUN_S
    with project.instance() as instance:
        while time.monotonic() < deadline:
            runs = instance.get_runs()
            if runs and runs[0].is_finished:
                return runs[0]
            time.sleep(1)
    pytest.fail(f"no run finished within {RUN_S} s")


@pytest.fixture(scope="module")
def materialized(page: Page, address: str, project: Project) -> dg.DagsterRun:
    """The run that a click on "Materialize all" in the job's asset graph starts."""
    page.goto(f"{address}/locations/neurolake_dagster/jobs/convert_flights")
    page.get_by_role("button", name="Materialize all").first.click()
    run = finished_run(project)
    take_picture(page, "job_graph")
    return run


def test_materialize_all_from_the_asset_graph_succeeds(materialized: dg.DagsterRun) -> None:
    assert materialized.status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.usefixtures("materialized")
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

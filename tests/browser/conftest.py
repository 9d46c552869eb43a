"""Tests of pages in a real browser: the system's Chromium, driven by Playwright."""

import shutil

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "http://localhost:")
REPORTS = pytest.StashKey[list]()


@pytest.fixture(scope="module")  # the event loop of Playwright ends before the tests of another module start
def browser():
    """A headless Chromium; the test is skipped if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=["--disable-gpu", "--disable-quic"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, request, tmp_path):
    """An empty tab, 1280 wide. The test fails on an error in the console or in a script, and on an external request."""
    context, problems = browser.new_context(viewport={"width": 1280, "height": 900}), []

    def check(message) -> None:
        if message.type == "error":
            problems.append(f"console: {message.text} ({message.location['url']})")

    context.on("request", lambda sent: sent.url.startswith(LOCAL) or problems.append(f"external request: {sent.url}"))
    tab = context.new_page()
    tab.on("console", check)
    tab.on("pageerror", lambda error: problems.append(f"script: {error}"))
    yield tab
    if any(report.failed for report in request.node.stash.get(REPORTS, [])):
        tab.screenshot(path=tmp_path / "page.png")
        print("screenshot:", tmp_path / "page.png")
    context.close()
    assert not problems, "\n".join(problems)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    report = yield
    item.stash.setdefault(REPORTS, []).append(report)  # for the fixture `page`, which ends after the test
    return report

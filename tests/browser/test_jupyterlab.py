"""Notebooks in JupyterLab, as a reader runs them: "Run All Cells" ends without an error, progress updates in place."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SHORT = {"teacher_epochs": 2, "epochs": 2, "teacher": '"resnet8"', "batch_size": 128}
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every output is in the page, also out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # no external request
}
SECONDS = 240  # for one notebook
# Every 50 ms: the progress bars in the page, as [value, max].
WATCH = """() => {
    const bars = () => [...document.querySelectorAll(".jp-Notebook progress")].map(bar => [bar.value, bar.max]);
    window.watched = [];
    setInterval(() => watched.push(bars()), 50);
}"""
RUN_ALL = """() => {
    window.ended = "";
    jupyterapp.commands.execute("notebook:run-all-cells").then(() => ended = "done", error => ended = `${error}`);
}"""
CELLS = "() => jupyterapp.shell.currentWidget.content.model.toJSON().cells"
READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@pytest.fixture
def lab(browser, tmp_path):
    """The address of a notebook's name in a JupyterLab of its own, with artifacts of its own; ended after the test."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab: pip install -r requirements.txt")
    for name, values in SETTINGS.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    copy_notebooks(tmp_path)
    token, runtime = secrets.token_hex(), tmp_path / "runtime"
    paths = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "KD_ROOT": "artifacts"}
    paths |= {"JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "config"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
        + [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}", "--expose-app-in-browser"],
        env=os.environ | {name: str(tmp_path / folder) for name, folder in paths.items()},
        stderr=(tmp_path / "lab.log").open("w"),
        start_new_session=True,
    )
    try:
        url = address(runtime, server, tmp_path / "lab.log")
        yield lambda name: f"{url}lab/tree/notebooks/{name}.ipynb?token={token}&reset"
    finally:
        end(server)


def copy_notebooks(folder: Path) -> None:
    """00 and 30 into `folder`/notebooks, 00 with a short training; the badges' pictures would be external requests."""
    (folder / "notebooks").mkdir()
    (folder / "plots").mkdir()
    for name in ("00_start_here", "30_results"):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            cell.source = re.sub(r"\[!\[Open in Colab\].*\n", "", cell.source)
            for picture in re.findall(r"\(\.\./(plots/[^)]+\.png)\)", cell.source):
                shutil.copy(NOTEBOOKS.parent / picture, folder / picture)
            for field, value in SHORT.items() if "parameters" in cell.metadata.get("tags", []) else ():
                cell.source = re.sub(rf"^({field}: \w+ = )\S+", rf"\g<1>{value}", cell.source, flags=re.MULTILINE)
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


def address(runtime: Path, server: subprocess.Popen, log: Path) -> str:
    """The server writes it once it listens."""
    for _ in range(600):
        for file in runtime.glob("jpserver-*.json"):
            return json.loads(file.read_text())["url"]
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def end(server: subprocess.Popen) -> None:
    """A server that is told to end also ends its kernels."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


def run_all(page, url: str) -> list[dict]:
    """Open a notebook, run all its cells and wait for the end; its code cells."""
    page.goto(url)
    page.wait_for_function(READY, timeout=1000 * SECONDS)
    page.evaluate(WATCH)
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => ended", timeout=1000 * SECONDS)
    assert page.evaluate("ended") == "done"
    return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]


def check_ran(cells: list[dict]) -> None:
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    assert all(cell["execution_count"] for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
def test_run_all_cells(lab, page):
    cells = run_all(page, lab("00_start_here"))
    check_ran(cells)
    trainings = [cell for cell in cells if "LiveProgress" in "".join(cell["source"])]
    pages = ["".join(output.get("data", {}).get("text/html", "")) for cell in trainings for output in cell["outputs"]]
    assert sum("<progress" in text for text in pages) == len(trainings) == 3
    watched = page.evaluate("watched")
    assert max(map(len, watched)) == 3  # one for each training, at all times
    values = {(number, value) for bars in watched for number, (value, _) in enumerate(bars)}
    assert len(values) > 6  # they moved
    assert all(value == longest for value, longest in watched[-1])

    check_ran(run_all(page, lab("30_results")))

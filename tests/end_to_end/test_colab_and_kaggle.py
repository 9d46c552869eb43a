"""The notebooks' first cell on Colab, on Kaggle with and without internet, and elsewhere.

Each test runs the committed cell. The repository's address is that of a repository made here, `/kaggle` and `/content`
are temporary folders, and pip has neither network nor dependencies.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from test_notebooks import REPOSITORY, ROOT

DRIVER = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell

if sys.argv[1] == "colab":
    import google.colab
shell = InteractiveShell.instance()
shell.run_cell(sys.argv[2]).raise_error()
facts = {name: os.environ.get(name) for name in ("KD_ROOT", "KD_DATA")}
import kdhelpers
from kdhelpers import artifacts, load_data
from kdhelpers.zoo.benchmark import published
from kdhelpers.display.html import curve
facts |= {"package": kdhelpers.__file__, "root": str(artifacts.root())}
facts["files"] = bool(published("supcrd")) and "svg" in curve("accuracy", {"val": [[1, 2]]})
facts["images"] = len(load_data("flowers", 8).test) if sys.argv[1] == "kaggle" else None
facts["mounted"] = getattr(sys.modules.get("google.colab.drive"), "mounted", None)
print(json.dumps(facts))
"""


def first_cell(name: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    """A machine's folders: `kaggle`, `content`, `installed` for pip, a fake `google.colab`, and the repository."""
    folder = tmp_path_factory.mktemp("host")
    for name in ("kaggle/working", "kaggle/input", "content", "fake/google/colab"):
        (folder / name).mkdir(parents=True)
    (folder / "fake/google/colab/__init__.py").touch()
    (folder / "fake/google/colab/drive.py").write_text("mounted = []\nmount = mounted.append\n")
    repository = folder / "repository"
    shutil.copytree(ROOT / "kdhelpers", repository / "kdhelpers", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (
        *ROOT.glob("requirements*.txt"),
        *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(file, repository)
    hosted = repository / "kdhelpers/artifacts/hosted.py"
    hosted.write_text(hosted.read_text().replace('Path("/', f'Path("{folder}/'))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    return folder


def attach_data(host: Path) -> None:
    flowers = host / "kaggle/input/someones-flowers/flowers"
    flowers.mkdir(parents=True, exist_ok=True)
    arrays = {"images": np.zeros((20, 8, 8, 3), np.uint8), "labels": np.arange(20) % 2}
    for split in ("train", "test"):
        np.savez(flowers / f"{split}.npz", **arrays)


def run(host: Path, machine: str, working: str, cell: str, **variables: str) -> dict:
    """The facts that DRIVER prints after the cell has run on the machine."""
    installed = host / f"installed_{machine}"
    installed.mkdir(exist_ok=True)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": str(installed)}
    unset = ("KD_ROOT", "KD_DATA", "KAGGLE_KERNEL_RUN_TYPE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= offline | variables | {"PYTHONPATH": os.pathsep.join([str(installed), str(host / "fake")])}
    cell = cell.replace(REPOSITORY, (host / "repository").as_uri()).replace('"/kaggle/', f'"{host}/kaggle/')
    command = [sys.executable, "-c", DRIVER, machine, cell]
    done = subprocess.run(command, cwd=host / working, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_on_colab_the_package_is_installed_and_drive_keeps_the_artifacts(host):
    facts = run(host, "colab", "content", first_cell("01_teacher").replace("drive=False", "drive=True"))
    assert facts["package"] == str(host / "installed_colab/kdhelpers/__init__.py")
    assert facts["files"]  # the published figures and the templates
    assert facts["mounted"] == [str(host / "content/drive")]
    assert facts["root"] == facts["KD_ROOT"] == str(host / "content/drive/MyDrive/kdhelpers")
    assert facts["KD_DATA"] == str(host / "content/data")


@pytest.mark.slow
def test_on_kaggle_with_internet_the_package_is_installed(host):
    attach_data(host)
    facts = run(host, "kaggle", "kaggle", first_cell("13_color_invariance"), KAGGLE_KERNEL_RUN_TYPE="Interactive")
    assert facts["package"] == str(host / "installed_kaggle/kdhelpers/__init__.py")
    assert facts["root"] == facts["KD_ROOT"] == str(host / "kaggle/working")


@pytest.mark.slow
@pytest.mark.parametrize("attached", ["repository", "wheel"])
def test_on_kaggle_without_internet_attached_files_are_used(host, attached):
    attach_data(host)
    place = host / "kaggle/input/datasets/someone" / attached
    place.mkdir(parents=True, exist_ok=True)
    if attached == "repository":
        shutil.copytree(host / "repository", place / "kdhelpers-main", dirs_exist_ok=True)
        (place / "kdhelpers-main/notebooks").mkdir(exist_ok=True)  # as in a checkout
    else:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*build, "-w", str(place), str(host / "repository")], check=True)
    before = sorted((host / "kaggle/input").rglob("*"))
    offline = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "PIP_TARGET": str(host / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        facts = run(host, "kaggle", "kaggle", first_cell("04_logit_matching"), **offline)
    finally:
        after = sorted((host / "kaggle/input").rglob("*"))
        shutil.rmtree(place)
    assert Path(facts["package"]).is_relative_to(place)
    assert facts["root"] == facts["KD_ROOT"] == str(host / "kaggle/working")
    assert facts["KD_DATA"] == str(host / "kaggle/temp/data")
    assert facts["images"] == 20
    assert facts["files"]
    assert after == before  # attached folders are read-only


def test_elsewhere_the_cell_imports_and_nothing_else(root, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    environment, path = dict(os.environ), list(sys.path)
    code = TransformerManager().transform_cell(first_cell("12_unlabelled_data"))
    exec(code, {})  # without get_ipython: a magic would be a NameError
    assert (dict(os.environ), sys.path) == (environment, path)
    assert f"artifacts: pth_models, plots, json_results in {root}" in capsys.readouterr().out

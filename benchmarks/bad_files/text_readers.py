"""The readers of texts: profiles, search spaces, notebooks, tables and pages."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import yaml
from PIL import Image, PngImagePlugin

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.image_readers import bomb
from benchmarks.bad_files.judge import SECRET
from benchmarks.bad_files.values import EXTREMES, forge_json, forge_yaml
from kdhelpers import Run, artifacts
from kdhelpers.evaluation.submission import check_output
from kdhelpers.report.gallery.pictures import saved_pages, saved_pictures
from kdhelpers.report.gallery.study_views import study_views
from kdhelpers.suite.notebook_page import notebook_page
from kdhelpers.suite.notebooks import cells_of, meanings_of, parameters_of, source_of, title_of
from kdhelpers.suite.profiles import fingerprints, load_profile, summary_of
from kdhelpers.suite.replay import end_marker
from kdhelpers.tuning.space import read_space, space_of

PROFILE = [
    {"name": "teacher", "notebook": "01_teacher", "parameters": {"dataset": "digits", "epochs": 2}},
    {"name": "lm_$n", "notebook": "04_logit_matching", "needs": ["teacher"], "parameters": {"epochs": "$n"},
    "seeds": "each", "matrix": [{"n": 1}, {"n": 2}]},
    {"name": "table", "notebook": "30_results", "after": ["lm_*"], "num_gpus": 0.5, "time_limit": "2h"},
]  # fmt: skip


def write_profile(root: Path) -> Sequence[Path]:
    path = root / "mine.yaml"
    path.write_text("# mine: a profile.\n" + yaml.safe_dump(PROFILE, sort_keys=False))
    return [path]


def _read_profile(root: Path, path: Path) -> None:
    path = str(root / "mine.yaml")
    summary_of(path)
    jobs = load_profile(path, seeds=(0, 1))
    fingerprints(jobs)
    load_profile(path, (0, 1), [jobs[-1].name])


SPACE = {
    "every": {"lr": {"around": 4}, "weight_decay": [1e-4, 5e-4]},
    "methods": {"lm": {"temperature": {"low": 1, "high": 8, "log": True}}},
}


def _space(root: Path) -> Sequence[Path]:
    (root / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return [root / "space.yaml"]


@cache
def _lm() -> Run:
    return Run(dataset="digits", model="resnet8", method="lm", teacher="resnet20", epochs=2)


def _read_space(root: Path, path: Path) -> None:
    path = root / "space.yaml"
    space_of(_lm(), read_space(path, ["lm", "si"]), str(path))


NOTEBOOK = {
    "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "display_name": "p"},
    "papermill": {"parameters": {"dataset": "digits"}},
                                                     "kdhelpers": {"fingerprint": "f", "finished": "t"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A title\n",
        "$x^2$ and ![picture](x.png) and [a link](y.md)"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "execution_count": 1,
        "source": "epochs: int = 3  # how many\nlr = 0.1\n", "outputs": []},
        {"cell_type": "code", "id": "c", "metadata": {}, "execution_count": 2, "source": "print(1)", "outputs": [
            {"output_type": "stream", "name": "stdout", "text": "1\n"},
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<b>x</b>", "image/png": "aGVsbG8=",
            "text/plain": "x", "image/svg+xml": "<svg/>"}},
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}]},
    ],
}  # fmt: skip
CELLS = (
    "x = " + "(" * 3000 + ")" * 3000, "x = " + "-" * 50_000 + "1", "x = [" * 500, "x = 1\0", "x = '\ud800'",
    "x" * 100_000, "\ufeffx = 1", "x = 0x" + "f" * 9000, "x = " + "9" * 9000,
    "__import__('os').system('touch kd_canary')", "x = __import__('kd_canary')", "x: (y := 1) = 2", "x = y = z = 1",
    "x, y = 1, 2", "# \u202e", "x = f'{1/0}'", "\\", "'''", "x = 1 if", "\r\r",
    "<script>alert(1)</script>", "![a](../../outside/secret.png)", "![a](/etc/passwd)", "![a](file:///etc/passwd)",
    "[a](javascript:alert(1))", "$" + "{" * 500, "$$\\frac" * 300,
    "[" * 5000, "> " * 2000, "* " * 2000, "<" * 9000, "`" * 9000, "![" * 3000, "|a|b|\n|-|-|\n" + "|x" * 3000,
    "# " + "../" * 50, "#" * 9000, "&" * 9000, "$" * 2001,
)  # fmt: skip


def _forge_notebook(random: Random, path: Path, content: bytes) -> bytes:
    if random.random() < 0.7:
        return forge_json(random, path, content)
    notebook = json.loads(content)
    random.choice(notebook["cells"])["source"] = random.choice((*CELLS, [random.choice(CELLS)] * 2))
    if random.random() < 0.3:
        notebook["cells"][2]["outputs"][1]["data"] = {
            random.choice(
                ("text/html", "image/svg+xml", "text/markdown", "text/latex", "application/javascript")
            ): random.choice(CELLS)
        }
    return json.dumps(notebook).encode("utf-8", "surrogatepass")


def _notebook(root: Path) -> Sequence[Path]:
    (root / "a.ipynb").write_text(json.dumps(NOTEBOOK))
    return [root / "a.ipynb"]


def _read_notebook(root: Path, path: Path) -> None:
    path = root / "a.ipynb"
    parameters_of(path), meanings_of(path), title_of(path)
    json.dumps([[cell["cell_type"], source_of(cell)] for cell in cells_of(path)])


def _read_executed(root: Path, path: Path) -> None:
    end_marker(root / "a.ipynb")
    page = notebook_page(root / "a.ipynb", root / "page.html").read_text()
    if "Content-Security-Policy" not in page or b64encode(SECRET).decode() in page or "PNG secret" in page:
        raise AssertionError("a page without its policy, or with the content of another file")


TABLES = {
    "attention_resnet8_cifar100": "network,images,iou,mass_in_box,method\nsi,10,0.5,0.4,si\nlm,10,0.6,0.5,lm\n",
    "kl_ranking_resnet8_cifar100": "label,kl,top1,top1_pct,method\nsi,0.5,50,50,si\nlm,0.4,60,60,lm\n",
}


def _plots(root: Path) -> Sequence[Path]:
    folder, paths = artifacts.folder("plots"), []
    for stem, text in TABLES.items():
        info = PngImagePlugin.PngInfo()
        info.add_itxt("Description", "a picture")
        Image.new("RGB", (8, 8)).save(folder / f"{stem}.png", pnginfo=info)
        (folder / f"{stem}.csv").write_text(text)
        paths += [folder / f"{stem}.png", folder / f"{stem}.csv", folder / f"{stem}.csv"]
    (folder / "page.html").write_text("<html><head><title>kdhelpers: a page</title></head></html>")
    return [*paths, folder / "page.html"]


def _read_plots(root: Path, path: Path) -> None:
    folder = artifacts.folder("plots")
    pictures = saved_pictures(folder)
    for picture in pictures:
        _ = picture.alt, picture.size
    study_views(pictures, saved_pages(folder), [])


def _forge_plot(random: Random, path: Path, content: bytes) -> bytes:
    if path.suffix == ".png":
        return (
            bomb(random.choice(("PNG", "BMP")), random.choice((9000, 60_000, 2**31 - 1)))
            if random.random() < 0.5
            else content[: random.randrange(99)]
        )
    words = [str(value) for value in EXTREMES if isinstance(value, str | int | float | bool)]
    if path.suffix == ".html":
        return f"<title>kdhelpers: {random.choice(words)}</title>".encode("utf-8", "replace")
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.randint(1, 3)):
        row = random.choice(rows)
        row[random.randrange(len(row))] = random.choice((*words, '"', '"a,b"', "x" * 140_000))
    return random.choice(("\n", "\r\n", "\n\n", ",\n")).join(map(",".join, rows)).encode("utf-8", "replace")


def _submission(root: Path) -> Sequence[Path]:
    (root / "s.csv").write_text("ID,Labels\n1,2\n")
    return [root / "s.csv"]


def _read_submission(root: Path, path: Path) -> None:
    check_output(root / "s.csv")


READERS = (
    Reader("profiles (YAML)", write_profile, _read_profile, forge_yaml),
    Reader("search spaces (YAML)", _space, _read_space, forge_yaml),
    Reader("notebooks", _notebook, _read_notebook, _forge_notebook),
    Reader("executed notebooks", _notebook, _read_executed, _forge_notebook),
    Reader("pictures, tables, pages of plots/", _plots, _read_plots, _forge_plot),
    Reader("submissions (CSV)", _submission, _read_submission),
)

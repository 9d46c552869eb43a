"""The jobs that are killed: each changes a root of artifacts, and ends with the same bits however often it starts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdhelpers import Run, artifacts, fit, fit_sweep, load_data
from kdhelpers.data import DATASETS
from kdhelpers.data.readers.catalogue import Archive, Source
from kdhelpers.data.readers.download import download
from kdhelpers.display.progress import Progress
from kdhelpers.report.gallery import write_gallery
from kdhelpers.suite import schedule
from kdhelpers.suite.profiles import load_profile
from kdhelpers.suite.replay import MARKER
from kdhelpers.training import checkpoint
from kdhelpers.tuning import tune
from kdhelpers.zoo.fetch import register_file

CHECKOUT = Path(__file__).resolve().parents[2]
FEW = {"dataset": "few", "model": "resnet8", "batch_size": 16, "precision": "fp32", "lr": 0.02}
RECORDS, PICTURES = 6, 2  # of this checkout, in the gallery that is killed
DOWNLOAD_BYTES = 700_000


@dataclass(frozen=True)
class Case:
    """prepare: fills the root before; work: what is killed; both run in a child process.

    every: one of so many steps is taken; parts: of these steps, for processes of their own.
    """

    key: str
    name: str
    prepare: Callable[[], None]
    work: Callable[[], None]
    every: int = 1
    parts: int = 1


def write_images(data: Path) -> None:
    """A data set of 8 pixels a side, `few`: 32 images to train, 8 of them held out, and 16 to test."""
    draw = np.random.default_rng(0)
    folder = data / "few"
    folder.mkdir(parents=True)
    for split, count in {"train": 40, "test": 16}.items():
        labels = np.arange(count) % 4
        images = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8) // 2 + (30 * labels[:, None, None, None])
        np.savez(folder / f"{split}.npz", images=images.astype(np.uint8), labels=labels)


def _nothing() -> None: ...


def _train(epochs: int = 2, **fields) -> None:
    checkpoint.CHECKPOINT_SECONDS = 0  # a checkpoint after every epoch
    trained = fit(Run(**FEW | {"epochs": epochs} | fields), progress=Progress(), device="cpu")
    print("loaded" if trained.cached else "trained")


def _teacher() -> None:
    _train(1, role="teacher")


def _lockstep() -> None:
    checkpoint.CHECKPOINT_SECONDS = 0
    runs = [Run(**FEW, epochs=2, teacher="resnet8", method=method) for method in ("lm", "dkd")]
    fit_sweep(runs, progress=Progress(), device="cpu", cache_teacher=True)


def _headed() -> None:
    """A student with a head, and a copy of it under a second name."""
    for name in ("first", "second"):
        _train(1, teacher="resnet8", method="simkd", name=name)


def _again() -> None:
    checkpoint.CHECKPOINT_SECONDS = 0
    fit(Run(**FEW, epochs=2), progress=Progress(), device="cpu", force_retrain=True)


def _tune() -> None:
    checkpoint.CHECKPOINT_SECONDS = 0
    tune(FEW | {"epochs": 1}, "si", 2, device="cpu")


NOTEBOOK = """
from kdhelpers import Run, fit
from kdhelpers.training import checkpoint
checkpoint.CHECKPOINT_SECONDS = 0
fit(Run(dataset="few", model="resnet8", batch_size=16, precision="fp32", epochs=epochs, seed=seed), device="cpu")
"""
JOBS = [
    {"name": "first", "notebook": "few", "parameters": {"seed": 0}},
    {"name": "second", "notebook": "few", "parameters": {"seed": 1}, "needs": ["first"]},
]


def write_suite(epochs: int) -> None:
    """A profile of two jobs, whose notebook trains a network for so many epochs."""
    import nbformat

    folder = artifacts.root() / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "few.yaml").write_text(json.dumps(JOBS))  # JSON is YAML
    parameters = f"seed: int = 0\nepochs: int = {epochs}"
    cells = [nbformat.v4.new_code_cell(text, id=f"cell-{len(text)}") for text in (parameters, NOTEBOOK)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "few.ipynb")


class InlineWorkers:
    """Runs the code of a job's notebook in this process; a kill ends the suite and its job."""

    description, at_once = "inline", 1

    def free(self) -> bool:
        return True

    def start(self, job, order: dict, log: str, copy: str) -> None:
        os.environ["KD_EXECUTED"] = copy
        names = {"epochs": 1, **order["parameters"]}
        exec(compile(NOTEBOOK, "few.ipynb", "exec"), names)
        artifacts.save_json(order["copy"], {"metadata": {MARKER: {"fingerprint": order["fingerprint"]}}})
        Path(log).write_text("")

    def poll(self, handle: None) -> int:
        return 0

    def stop(self, handles: list) -> None: ...


def _suite() -> None:
    schedule.POLL_SECONDS = 0
    if not schedule.Suite("few", load_profile("few")).run(InlineWorkers()):
        raise ValueError("a job has failed")


def _place_records() -> None:
    """Records, pictures and the numbers behind them, of this checkout."""
    for source, pattern, count in (("json_results", "student_*.json", RECORDS), ("plots", "*_cifar100.*", PICTURES)):
        for path in sorted((CHECKOUT / source).glob(pattern))[:count]:
            shutil.copy(path, artifacts.folder("results" if source == "json_results" else "plots"))


def served_files() -> dict[str, bytes]:
    """What the server of the downloads gives: weights, and an archive of a data set in class folders."""
    from PIL import Image

    archive, draw = io.BytesIO(), np.random.default_rng(1)
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for place in range(8):
            picture = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(picture, "PNG")
            split = ("train", "test")[place % 4 // 3]
            member = tarfile.TarInfo(f"shapes/{split}/{'ab'[place // 4]}/{place}.png")
            member.size = len(picture.getvalue())
            file.addfile(member, io.BytesIO(picture.getvalue()))
    return {"/weights.bin": draw.bytes(DOWNLOAD_BYTES), "/shapes.tgz": archive.getvalue()}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _place_weights() -> None:
    """Weights made elsewhere: those of a teacher, without their description."""
    _teacher()
    path = artifacts.weights_path("teacher_resnet8_few")
    path.rename(artifacts.root() / "given.pth")
    for file in (path.with_suffix(".json"), artifacts.record_path(path.stem)):
        file.unlink()


def _register() -> None:
    os.chdir(artifacts.root())  # its path becomes a part of the record
    register_file(Path("given.pth"), "resnet8", "few", force=True)


def cases(url: str, files: dict[str, bytes]) -> list[Case]:
    """url: of the server that gives the files."""

    def fetch() -> None:
        path = artifacts.folder("weights") / ".cache" / "weights.bin"
        download(f"{url}/weights.bin", path, _md5(files["/weights.bin"]))

    def fetch_data() -> None:
        os.environ["KD_DATA"] = str(artifacts.root() / "data")
        archive = Archive(f"{url}/shapes.tgz", _md5(files["/shapes.tgz"]))
        DATASETS["shapes"] = Source("shapes", classes=2, archive=archive)
        load_data("shapes", 8, val_fraction=0)

    return [
        Case("training", "training with a checkpoint each epoch", _nothing, _train, 1, 6),
        Case("lockstep", "lockstep: two students, one teacher and its cache", _teacher, _lockstep, 4, 2),
        Case("head", "student with a head, and its copy", _teacher, _headed, 4, 2),
        Case("again", "training again over a finished run", lambda: _train(2), _again, 2, 2),
        Case("tuning", "tuning: two trials", _nothing, _tune, 4, 2),
        Case("weights", "registering weights made elsewhere", _place_weights, _register, 1, 2),
        Case("gallery", "gallery: start page, pages, overviews", _place_records, write_gallery, 2, 2),
        Case("download", "download of 0.7 MB", _nothing, fetch, 1),
        Case("suite", "suite of two jobs that train", lambda: write_suite(1), _suite, 8, 2),
        Case("data set", "data set: download, unpacking, decoded images", _nothing, fetch_data, 3),
    ]

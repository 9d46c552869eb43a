"""Records and pages for the tests of the gallery."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from kdhelpers import artifacts


def store(name: str, top1: float = 50.0, status: str = "finished", error: str | None = None, **run) -> None:
    teacher = run.get("teacher")
    history = [
        {"epoch": 1, "lr": 0.05, "loss": 2.0, "ce": 1.5, "train_top1_pct": 20.0, "val_top1_pct": 25.0},
        {"epoch": 2, "lr": 0.05, "loss": 1.0, "ce": None, "train_top1_pct": 40.0, "val_top1_pct": 45.0},
    ]
    record = {
        "schema": 1,
        "name": name,
        "identity": f"{name:0<64}",
        "status": status,
        "error": error,
        "run": {
            "dataset": "cifar100",
            "role": "student",
            "model": "resnet8",
            "method": "si",
            "seed": 0,
            "epochs": 2,
            "batch_size": 64,
            "lr": 0.05,
            "optimizer": "sgd",
            "selection": "best_val",
            "hyperparameters": {},
            **run,
        },
        "teacher": teacher and {"name": teacher, "sha256": "a" * 64, "model": "resnet20", "test_top1_pct": 60.0},
        "command": f"papermill {name}.ipynb",
        "environment": {"device": "cpu", "device_name": "A chip", "precision": "fp32"},
        "notebook": f"notebooks/executed/{name}.ipynb",
    }
    if status == "finished":
        record |= {
            "history": history,
            "selection": {"rule": "best_val", "epoch": 2},
            "model": {"parameters": 78_000, "macs": 12_000_000},
            "metrics": {"test_top1_pct": top1},
        }
    artifacts.save_json(artifacts.record_path(name), record)


class Page(HTMLParser):
    """Text, links and open tags of a page; fails if tags do not match."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.links, self.open, self.tags, self.attributes = "", [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.links += [value for name, value in attributes if name in ("href", "src") and not value.startswith("#")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open and self.open[-1] in ("script", "style") else data


def setting_pages() -> list[Path]:
    return sorted((artifacts.folder("plots") / "pages").glob("*.html"))


def only_page() -> Page:
    (path,) = setting_pages()
    return Page(path)


def pair(dataset: str = "cifar100") -> None:
    """A teacher, two seeds of the student alone and of KD, one seed of CRD."""
    store(f"t_{dataset}", 60.0, role="teacher", model="resnet20", dataset=dataset)
    for seed, (alone, kd) in enumerate(((50.0, 53.0), (52.0, 54.0))):
        store(f"si{seed}_{dataset}", alone, seed=seed, dataset=dataset)
        store(f"lm{seed}_{dataset}", kd, method="lm", teacher=f"t_{dataset}", seed=seed, dataset=dataset)
    store(f"crd_{dataset}", 51.0, method="crd", teacher=f"t_{dataset}", dataset=dataset)

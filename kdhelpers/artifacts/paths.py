"""Where artifacts live: the root, the folder of each kind, the path of each name."""

import os
import re
from pathlib import Path

from kdhelpers.messages import short

FOLDERS = {
    "weights": "pth_models",
    "checkpoints": "pth_models/checkpoints",
    "outputs": "pth_models/outputs",
    "exports": "pth_models/exports",
    "plots": "plots",
    "results": "json_results",
    "submissions": "submissions",
    "executed": "notebooks/executed",
}


def root() -> Path:
    """The artifacts' root: `KD_ROOT`, else the checkout this package lies in, else the current folder."""
    if os.environ.get("KD_ROOT"):
        return Path(os.environ["KD_ROOT"]).expanduser().absolute()
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def data_root() -> Path:
    """The folder of the data sets and their downloads: `KD_DATA`, else `data/` under the root."""
    return Path(os.environ["KD_DATA"]).expanduser().absolute() if os.environ.get("KD_DATA") else root() / "data"


def folder(kind: str) -> Path:
    """The folder of one kind of artifact (`FOLDERS` lists them), created on demand."""
    path = root() / FOLDERS[kind]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def cannot_write(path: Path, error: OSError, variable: str = "KD_ROOT") -> OSError:
    reason = error.strerror or str(error)
    return OSError(f"cannot write {path}: {reason}; free some space or set {variable} to a folder that can be written")


def file_name(text: str) -> str:
    """The text as part of a file's name: timm-resnet18 of timm:resnet18, nets-tiny.py-Tiny of nets/tiny.py:Tiny."""
    return re.sub(r"[:/\\\s]+", "-", text) if ":" in text else text


def record_path(name: str) -> Path:
    """Raises ValueError for a name that leads out of the folder, as one from a file may."""
    if ".." in name.split("/") or name.startswith("/") or "\0" in name:
        raise ValueError(f"name = {short(name)}: leads out of {FOLDERS['results']}; take the name of a record")
    return folder("results") / f"{name}.json"


def weights_path(name: str) -> Path:
    return folder("weights") / f"{name}.pth"


def run_lock_path(identity: str) -> Path:
    return folder("checkpoints") / f"{identity[:16]}.lock"


def checkpoint_path(identity: str) -> Path:
    return folder("checkpoints") / f"{identity[:16]}.pt"

"""The published teachers of the CRD benchmark: accuracies, addresses and download.

Their authors publish no hashes. Verified instead: each tensor fits the architecture, and the test accuracy measured
here agrees with the published one.
"""

import tarfile
from collections.abc import Iterable
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.data import Data, load_data
from kdhelpers.data.readers.download import download
from kdhelpers.messages import inform
from kdhelpers.models import check_model
from kdhelpers.nearest import known_names
from kdhelpers.python_paths import is_python_path, use_network
from kdhelpers.training.options import named_values
from kdhelpers.weights.load import read_weights
from kdhelpers.zoo.benchmark import published_teachers
from kdhelpers.zoo.register import TOLERANCE, register

DATASET = "cifar100"
HOST = "http://shape2prog.csail.mit.edu/repo"  # of the RepDistiller repository's fetch script
# The same files in one archive of about 364 MB, a release of the mdistiller repository. The host is often down.
MIRROR = "https://github.com/megvii-research/mdistiller/releases/download/checkpoints/cifar_teachers.tar"
FILES = {  # folders on the host and in the archive
    "wrn_40_2": "wrn_40_2_vanilla",
    "resnet56": "resnet56_vanilla",
    "resnet110": "resnet110_vanilla",
    "resnet32x4": "resnet32x4_vanilla",
    "vgg13": "vgg13_vanilla",
    "resnet50_crd": "ResNet50_vanilla",
}
CHECKPOINT = "ckpt_epoch_240.pth"
TRAINING = {"epochs": 240, "batch_size": 64, "selection": "last"}
# Reported by public re-runs of the benchmark for the file of host and archive, not by its authors.
REPORTED = {"resnet32x4": "22aa12e2b632b19ddde155ccf2388671842ddd304824b3095e0a7fff364beb4f"}


def table() -> list[tuple[str, str, str]]:
    """A row per published teacher: architecture, published test top-1, and the teachers of it that are stored here."""
    rows = [("architecture", "published", "stored here")]
    for model, top1_pct in published_teachers().items():
        rows.append((model, f"{top1_pct:.2f} %", ", ".join(map(_summary, _stored(model))) or "-"))
    return rows


def _stored(model: str) -> list[dict]:
    """The sidecars of the stored teachers of that architecture and data set."""
    sidecars = []
    for path in sorted(artifacts.folder("weights").glob(f"teacher_{model}_{DATASET}*.pth")):
        try:
            sidecar = read_weights(path).description
        except ValueError:  # of other weights
            continue
        if sidecar.get("model") == model:
            sidecars.append(sidecar)
    return sidecars


def _summary(sidecar: dict) -> str:
    origin = "published" if _is_published(sidecar) else "made elsewhere" if "origin" in sidecar else "trained here"
    return f"{sidecar['name']} ({origin}, {sidecar['test_top1_pct']:.2f} %)"


def _is_published(sidecar: dict) -> bool:
    return "published_top1_pct" in sidecar.get("origin", {})


def check_known(models: Iterable[str]) -> None:
    """ValueError for an architecture without a published teacher; the message lists similar names."""
    for model in models:
        if model not in FILES:
            raise ValueError(f"teachers = {model}: is not published; {known_names(model, FILES)}")


def fetch(model: str) -> dict:
    """The result record of the published teacher; downloads and registers it unless it is stored.

    Continues an interrupted download and discards a wrong file. Raises ValueError for an unknown name, ConnectionError
    if neither host nor mirror delivers the file, and as `load_data` if the test images are missing.
    """
    check_known([model])
    for sidecar in filter(_is_published, _stored(model)):
        if record := artifacts.load_record(sidecar["name"]):
            return record
    data, reasons = load_data(DATASET, val_fraction=0), []
    cache = artifacts.folder("weights") / ".cache"
    for get in (_from_host, _from_mirror):
        try:
            path, source, downloaded = get(model, cache)
            return _registered(path, model, data, source, downloaded)
        except (ConnectionError, ValueError) as error:
            reasons.append(str(error))
            inform(f"{model}: {error}")
    raise ConnectionError(
        f"{model} could not be fetched ({'; '.join(reasons)}); try again later, or get "
        f"{HOST}/{FILES[model]}/{CHECKPOINT} by hand and run "
        f"`python -m kdhelpers teachers --file {CHECKPOINT} --model {model} --dataset {DATASET}`"
    )


def _from_host(model: str, cache: Path) -> tuple[Path, str, Path]:
    """The checkpoint, its source, and the downloaded file."""
    url = f"{HOST}/{FILES[model]}/{CHECKPOINT}"
    path = download(url, cache / f"{FILES[model]}.pth")
    return path, url, path


def _from_mirror(model: str, cache: Path) -> tuple[Path, str, Path]:
    """As `_from_host`, extracted from the archive, which stays for the other teachers."""
    archive, path = download(MIRROR, cache / MIRROR.rsplit("/", 1)[1]), cache / f"{FILES[model]}.mirror.pth"
    try:
        with tarfile.open(archive, "r:") as file:
            members = [member for member in file if member.name.endswith(f"{FILES[model]}/{CHECKPOINT}")]
            if not members or not members[0].isfile() or members[0].issparse():
                raise tarfile.ReadError(f"without {FILES[model]}/{CHECKPOINT}")
            artifacts.write_atomic(path, file.extractfile(members[0]).read())
    except tarfile.TarError as error:
        archive.unlink()
        raise ValueError(f"{MIRROR}: not a valid archive ({error}); the download is discarded") from error
    inform(f"{archive} stays for the other teachers; delete it when you have those you want")
    return path, f"{MIRROR} ({members[0].name})", archive


def _registered(path: Path, model: str, data: Data, source: str, downloaded: Path) -> dict:
    try:
        if model in REPORTED and (sha256 := artifacts.sha256(path)) != REPORTED[model]:
            raise ValueError(f"{source}: its sha256 is {sha256}; re-runs of the benchmark report {REPORTED[model]}")
        record = register(path, model, data, source, {"test_top1_pct": published_teachers()[model], **TRAINING})
    except ValueError:  # the next try must not use this file; after an interruption it may
        path.unlink()
        downloaded.unlink(missing_ok=True)
        raise
    path.unlink()
    return record


def register_file(path: Path, model: str, dataset: str, force: bool = False, options: str = "") -> dict:
    """The result record of the user's own weights, registered. Raises as `register` and `load_data` do.

    options: of the network, as a text such as "patch_size:4 depth:4".
    """
    given = named_values(options, "model-options", '"patch_size:4 depth:4"')
    if is_python_path(model):
        use_network(model)
    check_model(model, options=given)  # before a download
    return register(path, model, load_data(dataset, val_fraction=0), force=force, options=given)


def report(record: dict) -> str:
    """The registered teacher, its verified facts and its unverified ones, one per line."""
    origin, run, reached = record["origin"], record["run"], record["metrics"]["test_top1_pct"]
    published = origin.get("published_top1_pct")
    measured = f"{reached:.2f} % of the {record['data']['test']:,} test images of {run['dataset']}"
    unknown = "who trained it, how, on which images" if published is None else "the sha256, as its authors publish none"
    if published and origin["file_sha256"] == REPORTED.get(run["model"]):
        unknown = "that the sha256 is the authors' own: they publish none, others report this one"
    lines = {
        "source": origin["source"],
        "sha256": f"{origin['file_sha256']} (of that file)",
        "in the file": origin["file_says"],
        "tensors": f"all fit {run['model']}, {record['data']['classes']} classes",
        "test top-1": f"{measured}; published {published:.2f} %, within {TOLERANCE} points" if published else measured,
        "not verified": unknown,
        **({"note": "; ".join(record["notes"])} if record["notes"] else {}),
    }
    facts = "\n".join(f"  {name:<13}{text}" for name, text in lines.items())
    return f"{record['name']}: registered\n{facts}"

"""What a profile needs and this root lacks: data sets, teachers, ImageNet weights; what a rehearsal takes instead."""

import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException

import torch
from torch import nn

from kdhelpers import artifacts
from kdhelpers.data import DATASETS
from kdhelpers.data.load import is_stored
from kdhelpers.models import MODELS, is_network, rebuild_model
from kdhelpers.models.networks.torchvision_resnet import imagenet_file
from kdhelpers.suite.notebooks import parameters_of
from kdhelpers.suite.profiles import Job
from kdhelpers.zoo.benchmark import published_teachers

EMBEDDED = "digits"  # its images are at hand, and its notebooks train a missing teacher
GIVEN = ("teacher", "teachers", "start_from")  # parameters that name weights
IMAGES, SIDE = 8, 32  # of the noise that a random teacher has seen
TIMEOUT = 5  # seconds after which a host does not answer


def missing(jobs: Sequence[Job]) -> list[str]:
    """A line, with the remedy, for each data set and each file of weights that the jobs need and that is not here."""
    return [*_missing_data(jobs), *_missing_teachers(jobs), *_missing_imagenet_weights(jobs)]


def _dataset(job: Job) -> str:
    return job.parameters.get("dataset", EMBEDDED)


def _missing_data(jobs: Sequence[Job]) -> Iterator[str]:
    for name in dict.fromkeys(map(_dataset, jobs)):
        source = DATASETS.get(name)
        if source and not source.read and not is_stored(name):
            urls = [*(source.parquet or {}).values(), *([source.archive.url] if source.archive else [])]
            host = next((url for url in urls if _answers(url)), None)
            remedy = f"the suite downloads it from {host}" if host else "no host of it answers; put it there by hand"
            yield f"data set {name}: is not under {artifacts.data_root()}; {remedy}"


def _answers(url: str) -> bool:
    with suppress(OSError, HTTPException, ValueError):  # the others: an answer that is not HTTP, a faulty redirection
        return urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).status < 400
    return False


def _missing_teachers(jobs: Sequence[Job]) -> Iterator[str]:
    for name, (model, dataset) in _teachers(jobs).items():
        if is_network(model) and not artifacts.weights_path(name).is_file():
            published = dataset == "cifar100" and model in published_teachers()
            fetch = f"`python -m kdhelpers teachers {model}` fetches it; " * published
            train = f"`python -m kdhelpers train dataset={dataset} model={model} role=teacher` trains one"
            yield f"teacher {name}: is not stored, and no job of the profile trains it; {fetch}{train}"


def _missing_imagenet_weights(jobs: Sequence[Job]) -> Iterator[str]:
    """Those of torchvision's ResNets, from which a teacher starts."""
    starts = dict.fromkeys(job.parameters.get("teacher") for job in jobs if job.parameters.get("pretrained"))
    for name in (name for name in starts if name in MODELS and MODELS[name].pretrained):
        url, path = imagenet_file(name)
        if not path.is_file():
            remedy = f"the suite downloads them from {url}" if _answers(url) else f"put {url} there by hand"
            yield f"ImageNet weights of {name}: are not at {path}; {remedy}"


def _teachers(jobs: Sequence[Job]) -> dict[str, tuple[str, str]]:
    """{weights: (architecture or their name, data set)} of what jobs take and no job of the profile trains."""
    taken = {
        artifacts.file_name(f"teacher_{given}_{_dataset(job)}" if is_network(given) else given): (given, _dataset(job))
        for job in jobs
        if job.notebook.stem != "01_teacher" and _dataset(job) != EMBEDDED
        for given in " ".join(_given(job).values()).split()
    }
    derived = {
        f"teacher_{_given(job).get('teacher')}_{_dataset(job)}" for job in jobs if job.notebook.stem == "01_teacher"
    }
    trained = derived | {job.parameters.get("name") for job in jobs}
    return {name: facts for name, facts in taken.items() if name not in trained}


def _given(job: Job) -> dict[str, str]:
    """The parameters in GIVEN; what the job does not state is the default of its notebook."""
    written = {name: text.strip("'\"") for name, text in parameters_of(job.notebook).items()} | job.parameters
    return {name: str(written[name]) for name in GIVEN if name in written}


def place_weights(jobs: Sequence[Job]) -> None:
    """Put the jobs' teachers into this rehearsal's root: stored ones of the rehearsed root, random ones otherwise."""
    stored = artifacts.rehearsed_root() / artifacts.FOLDERS["weights"]
    for name, (model, dataset) in _teachers(jobs).items():
        if (stored / f"{name}.pth").is_file():
            for path in (stored / f"{name}{suffix}" for suffix in (".pth", ".json", ".head")):
                if path.is_file():
                    shutil.copyfile(path, artifacts.folder("weights") / path.name)
        elif is_network(model) and dataset in DATASETS:
            _store_random(name, model, DATASETS[dataset].classes)


@torch.random.fork_rng(devices=[])
def _store_random(name: str, model: str, classes: int) -> None:
    path, network = artifacts.weights_path(name), rebuild_model(model, classes)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # one batch sets the statistics: without them the maps of a deep network are infinite
    with torch.no_grad():
        network(torch.randn(IMAGES, 3, SIDE, SIDE))
    artifacts.save_tensors(path, network.state_dict())
    facts = {"name": name, "model": model, "model_options": {}, "num_classes": classes, "test_top1_pct": 100 / classes}
    artifacts.save_json(path.with_suffix(".json"), facts | {"sha256": artifacts.sha256(path), "notes": []})

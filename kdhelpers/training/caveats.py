"""Notes on data leakage and on a teacher of other images, which accompany the figures of a run.

Test images that are copies of training images, or among the unlabelled ones; labels hidden from this run but known to
its teacher or its initial weights; networks that started from pretrained weights; and the notes inherited from teacher
and initial weights.
"""

import re

from kdhelpers import artifacts
from kdhelpers.data import DATASETS, Data, labelled_count
from kdhelpers.models.external import build_facts
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.run import Run

OTHER_IMAGES = re.compile(r"\((?!.*in\d+k)")  # timm names the images of its weights: in1k, in22k, laion2b, ...
SAME_STATISTICS = 0.02  # of pixels in 0..1: other held-out images change the statistics by less


def caveats(inputs: Inputs, origins: list[str]) -> list[str]:
    """All notes on a run whose networks of `imagenet_starts` are `origins`."""
    run, data = inputs.run, inputs.data
    notes = leakage_notes(run.dataset, origins)
    if data.leaked_files:
        notes.append(f"leakage: {data.leaked_files:,} files of the other splits are copies of training files")
    if run.build_method().uses_unlabelled:
        notes += _images_without_labels(run, data)
    if (size := _size_of_teacher(inputs)) != data.image_size:
        notes.append(f"teacher: trained at {size} px, used at {data.image_size} px; its accuracy is measured there")
    notes += _other_statistics(inputs)
    for name, weights in _sources(inputs):
        source = weights.description.get("run") or {}
        notes += _hidden_labels(name, run, source, data)
        if source.get("dataset") == run.dataset:
            notes += _inherited(name, run, weights.description.get("notes", []))
    return list(dict.fromkeys(notes))


def _size_of_teacher(inputs: Inputs) -> int:
    """Side of the images that the teacher was trained on."""
    own = inputs.data.image_size
    return inputs.teacher.description.get("image_size", own) if inputs.teacher else own


def _other_statistics(inputs: Inputs) -> list[str]:
    """Whether the teacher was trained on images of other statistics: this run normalises them by its own.

    Another image size changes the statistics of the same images, and has a note of its own.
    """
    description, data = inputs.teacher.description if inputs.teacher else {}, inputs.data
    if _size_of_teacher(inputs) != data.image_size:
        return []
    own = [description.get("mean") or data.mean, description.get("std") or data.std]
    pairs = zip([*own[0], *own[1]], [*data.mean, *data.std], strict=True)
    if max(abs(of_teacher - here) for of_teacher, here in pairs) <= SAME_STATISTICS:
        return []
    texts = [" ".join(f"{value:.2f}" for value in values) for values in (*own, data.mean, data.std)]
    trained, here = f"mean {texts[0]}, std {texts[1]}", f"mean {texts[2]}, std {texts[3]}"
    return [f"teacher: trained on images of {trained}, used on images of {here}; its accuracy may not hold here"]


def leakage_notes(dataset: str, origins: list[str]) -> list[str]:
    """A note per network that started from pretrained weights, if the data set has images of ImageNet."""
    leak = DATASETS[dataset].imagenet_leak if dataset in DATASETS else None
    if not leak:
        return []
    other = f"weights of other images, which may include ImageNet's; {leak.partition(',')[0]}"
    starts = {origin: other if OTHER_IMAGES.search(origin) else f"ImageNet weights; {leak}" for origin in origins}
    return [f"leakage: the {origin} started from {start}" for origin, start in starts.items()]


def imagenet_starts(inputs: Inputs) -> list[str]:
    """The networks that started from ImageNet weights: of the teacher, of the initial weights, the run's own."""
    origins = [_stored_origins(weights.description, weights.sha256) for _, weights in _sources(inputs)]
    return list(dict.fromkeys([*sum(origins, []), *_own_origin(inputs.run.model_dump())]))


def _sources(inputs: Inputs) -> list[tuple]:
    sources = (("the teacher", inputs.teacher), ("the initial network", inputs.start))
    return [(name, weights) for name, weights in sources if weights]


def _stored_origins(description: dict, sha256: str) -> list[str]:
    """From the sidecar; for a copy of weights without sidecar, from the record of weights with the same content."""
    if not description:
        records = artifacts.records()
        description = next((r for r in records if (r.get("weights") or {}).get("sha256") == sha256), {})
    return description.get("imagenet_starts", _own_origin(description.get("run") or {}))  # absent in older files


def _own_origin(run: dict) -> list[str]:
    if not run.get("pretrained"):
        return []
    named = f"{run['role']} {run['model']}"
    is_of_timm = run["model"].startswith("timm:")  # it offers weights of several collections of images
    return [f"{named} ({build_facts(run['model'], True)['weights']})" if is_of_timm else named]


def _images_without_labels(run: Run, data: Data) -> list[str]:
    notes = []
    if count := data.test_images_unlabelled:
        notes.append(
            f"transductive: {run.method} trained on {count:,} of the {len(data.test):,} test images, without labels"
        )
    if run.selection == "best_val" and (count := data.held_out_images_unlabelled):
        notes.append(
            f"selection: the epoch is chosen on {len(data.val):,} images, {count:,} of them trained on without labels"
        )
    return notes


def _hides_labels(run: Run) -> bool:
    return (run.unlabelled or "").startswith("train:")


def _hidden_labels(name: str, run: Run, source: dict, data: Data) -> list[str]:
    """Whether weights of the Run `source` ({} if unknown) were trained with labels that this run hides."""
    if not _hides_labels(run):
        return []
    if not source.get("dataset"):
        return [f"known labels: it is unknown which labels {name} was trained with; this run hides some"]
    if source["dataset"] != run.dataset:
        return []
    whole = len(data.train) + len(data.unlabelled)
    same_split = all(source.get(field) == getattr(run, field) for field in ("val_fraction", "split_seed"))
    # In the same split a smaller labelled part lies within a larger one, except for an image or so per class.
    if same_split and labelled_count(source.get("unlabelled"), whole) <= len(data.train):
        return []
    return [f"known labels: {name} was trained with labels of images that are here taken to have none"]


def _inherited(name: str, run: Run, notes: list[str]) -> list[str]:
    """Weights pass on which images and labels they were trained with, not how their epoch was chosen."""
    kinds = ("transductive", "known labels") if _hides_labels(run) else ("transductive",)
    parts = [note.partition(": ") for note in notes]
    return [f"{kind}: {name}: {text}" for kind, _, text in parts if kind in kinds]

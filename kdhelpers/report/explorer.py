"""The explorer of stored networks: which networks, and the page in plots/."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.analysis.explorer_page import explorer_page
from kdhelpers.artifacts import load_record, original_name, weights_path
from kdhelpers.data import load_data
from kdhelpers.device import pick_device
from kdhelpers.display.plots import save_page
from kdhelpers.evaluation.predictions import infer
from kdhelpers.messages import inform
from kdhelpers.nearest import guess
from kdhelpers.report.cohort import Cohort, stored_students
from kdhelpers.report.results import results
from kdhelpers.weights.load import find_weights, load_model

MOST = 8  # students on a page


def write_explorer(
    names: Sequence[str] = (), dataset: str | None = None, images: int = 500, page: str | None = None
) -> Path:
    """Write the explorer of stored networks to plots/<page>.html; returns its path.

    names: students, and their teacher; without a teacher, that of the first student. Without names: the newest student
    (of `dataset`), with the students of its budget and seed. Raises FileNotFoundError for networks that are not stored,
    ValueError for networks of different test images.
    """
    records = [_record(name) for name in names] or [_newest(dataset)]
    _check_images(records, dataset)
    taught = [record for record in records if record["run"]["role"] == "student"]
    cohort = _cohort(records, taught) if names else _budget_of(taught[0])
    students = _labelled(cohort)
    data, stored_as = load_data(*cohort.data), {"teacher": cohort.teacher, **students}
    predictions = {label: _predictions(name, data) for label, name in stored_as.items()}
    model = taught[0]["run"]["model"]
    subject = f"{model} on {data.name}"
    text = explorer_page(data, predictions.pop("teacher"), predictions, subject, images, stored_as=stored_as)
    return save_page(text, page or f"explore_{model}_{data.name}")


def _record(name: str) -> dict:
    record = load_record(original_name(name.removesuffix(".pth")))
    if record is None or record.get("status") != "finished":
        near = guess(name, [stored["name"] for stored in artifacts.records()], 3)
        raise FileNotFoundError(f"explore = {name}: not stored; {near}`python -m kdhelpers list runs` lists all")
    return record


def _newest(dataset: str | None) -> dict:
    """The record of the newest student of a teacher whose weights are stored here."""
    frame = results(dataset)
    taught = frame[(frame["role"] == "student") & frame["teacher_sha256"].notna()].sort_values("finished")
    for name in reversed(taught["name"].tolist()):
        if weights_path(name).is_file():
            return load_record(name)
    where = f" for {dataset}" if dataset else ""
    raise FileNotFoundError(
        f"explore: no student of a teacher is stored{where} with its weights; `python -m kdhelpers suite --only "
        "04_logit_matching` trains one on the digits"
    )


def _check_images(records: Sequence[dict], dataset: str | None) -> None:
    """ValueError unless all networks have the same test images, those of `dataset` if it is given."""
    images = {
        record["name"]: (record["run"]["dataset"], (record.get("data") or {}).get("image_size")) for record in records
    }
    texts = dict.fromkeys(f"{name} at {size} pixels" for name, size in images.values())
    if len(texts) > 1:
        raise ValueError(f"explore = {', '.join(images)}: {' and '.join(texts)}; name networks of one data set")
    (trained_on,) = {name for name, _ in images.values()}
    if dataset not in (None, trained_on):
        raise ValueError(f"dataset = {dataset}: {', '.join(images)}: trained on {trained_on}; leave it out")


def _cohort(records: Sequence[dict], taught: Sequence[dict]) -> Cohort:
    """The named students, and the named teacher or that of the first student that has one."""
    teachers = [record["name"] for record in records if record["run"]["role"] == "teacher"]
    if len(teachers) > 1 or not taught:
        named = ", ".join(record["name"] for record in records)
        raise ValueError(f"explore = {named}: name one student or more, and one teacher")
    own = [record["teacher"]["name"] for record in taught if record.get("teacher")]
    if not (teachers or own):
        raise ValueError(f"explore = {taught[0]['name']}: was trained without a teacher; name a teacher, too")
    run, names = taught[0]["run"], " ".join(record["name"] for record in taught)
    seeds = sorted({record["run"]["seed"] for record in taught})
    return stored_students(run["dataset"], run["model"], (teachers or own)[0], seeds, names)


def _budget_of(record: dict) -> Cohort:
    run = record["run"]
    return stored_students(run["dataset"], run["model"], record["teacher"]["name"], [run["seed"]], like=record["name"])


def _labelled(cohort: Cohort) -> dict[str, str]:
    """Label -> name of the students; the label has the seed if there are several."""
    several = len(cohort.students) > 1
    students = {
        f"{label}, seed {seed}" if several else label: name
        for seed, labels in cohort.students.items()
        for label, name in labels.items()
    }
    if len(students) > MOST:
        inform(f"{len(students)} students: the page has the first {MOST}; name the students that you want")
    return dict(list(students.items())[:MOST])


def _predictions(name: str, data):
    """Of the test images, normalised as in the network's training."""
    weights, device = find_weights(name), str(pick_device())
    own = {field: tuple(weights.description[field]) for field in ("mean", "std") if field in weights.description}
    return infer(load_model(weights, device=device), replace(data, **own))

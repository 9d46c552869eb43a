"""What a run has seen of images or labels that it is judged by: notes that stand beside its figures."""

from __future__ import annotations

from kdhelpers.data import Data
from kdhelpers.methods import METHODS
from kdhelpers.settings import Run
from kdhelpers.teachers import Teacher, find_weights, sidecar, teacher_name

KINDS = ("transductive: ", "labels: ")


def seen_notes(run: Run, teacher: Teacher | None, data: Data) -> list[str]:
    """Of test images among its unlabelled ones, of labels that its teacher knows but it does not; and what the teacher,
    or the weights that it goes on from, have on them of the same data set."""
    notes = []
    if METHODS[run.method](**run.hyperparameters).uses_unlabelled and (seen := data.test_images_unlabelled):
        notes.append(
            f"transductive: {run.method} trained on {seen:,} of the {len(data.test):,} test images, without labels"
        )
    if teacher and (run.unlabelled or "").startswith("train:"):
        notes += _labels_known(run, teacher.described.get("run") or {})
    start = sidecar(find_weights(teacher_name(run.start_from, run.dataset))) if run.start_from else None
    for described in filter(None, (teacher and teacher.described, start)):
        if (described.get("run") or {}).get("dataset") == run.dataset:
            notes += [note for note in described.get("notes", []) if note.startswith(KINDS)]
    return list(dict.fromkeys(notes))


def _labels_known(run: Run, taught: dict) -> list[str]:
    """Whether a teacher of that Run ({} for one made elsewhere) saw labels that this run sets aside."""
    if not taught.get("dataset"):
        return ["labels: it is not known which labels the teacher was trained with; here some are taken away"]
    ours = {field: getattr(run, field) for field in ("unlabelled", "val_fraction", "split_seed")}
    if taught["dataset"] == run.dataset and {field: taught.get(field) for field in ours} != ours:
        return ["labels: the teacher was trained with labels of images that are here taken to have none"]
    return []

"""What a run has seen of images or labels that it is judged by: notes that stand beside its figures."""

from __future__ import annotations

from kdhelpers.data import Data, labelled_count
from kdhelpers.methods import METHODS
from kdhelpers.settings import Run
from kdhelpers.teachers import Teacher, find_weights, sidecar, teacher_name

KINDS = ("transductive: ", "selection: ", "known labels: ")


def seen_notes(run: Run, teacher: Teacher | None, data: Data) -> list[str]:
    """Of test or held-out images among its unlabelled ones, of labels that it sets aside but that the teacher, or the
    weights it goes on from, knows; and what these have noted themselves on images of the same data set."""
    notes = _images(run, data) if METHODS[run.method](**run.hyperparameters).uses_unlabelled else []
    start = sidecar(find_weights(teacher_name(run.start_from, run.dataset))) if run.start_from else None
    for who, described in (("the teacher", teacher and teacher.described), ("what this goes on from", start)):
        if described is not None:
            notes += _labels_known(who, run, described.get("run") or {}, data)
            if (described.get("run") or {}).get("dataset") == run.dataset:
                notes += [note for note in described.get("notes", []) if note.startswith(KINDS)]
    return list(dict.fromkeys(notes))


def _images(run: Run, data: Data) -> list[str]:
    notes = []
    if seen := data.test_images_unlabelled:
        notes.append(
            f"transductive: {run.method} trained on {seen:,} of the {len(data.test):,} test images, without labels"
        )
    if run.selection == "best_val" and (seen := data.held_out_images_unlabelled):
        notes.append(
            f"selection: the epoch is chosen on {len(data.val):,} images, {seen:,} of them trained on without labels"
        )
    return notes


def _labels_known(who: str, run: Run, taught: dict, data: Data) -> list[str]:
    """Whether weights of that Run ({} for weights made elsewhere) saw labels that this run sets aside."""
    if not (run.unlabelled or "").startswith("train:"):
        return []
    if not taught.get("dataset"):
        return [f"known labels: it is not known which labels {who} was trained with; here some are taken away"]
    if taught["dataset"] != run.dataset:
        return []
    whole = len(data.train) + len(data.unlabelled)
    same_parts = all(taught.get(field) == getattr(run, field) for field in ("val_fraction", "split_seed"))
    # of the same parts a larger share that is set aside holds a smaller one, class by class
    if same_parts and labelled_count(taught.get("unlabelled"), whole) <= len(data.train):
        return []
    return [f"known labels: {who} was trained with labels of images that are here taken to have none"]

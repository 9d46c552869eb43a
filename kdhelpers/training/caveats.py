"""What a run has seen of images or labels that it is judged by: notes that stand beside its figures."""

from kdhelpers.data import Data, labelled_count
from kdhelpers.methods import METHODS
from kdhelpers.training.run import Run
from kdhelpers.training.teacher import Teacher
from kdhelpers.weights.load import find_teacher


def seen_notes(run: Run, teacher: Teacher | None, data: Data) -> list[str]:
    """Of test or held-out images among its unlabelled ones, of labels that it sets aside but that the teacher, or the
    weights it goes on from, knows; and what of that is noted of these themselves, on images of the same data set."""
    notes = _images(run, data) if METHODS[run.method](**run.hyperparameters).uses_unlabelled else []
    start = find_teacher(run.start_from, run.dataset).description if run.start_from else None
    for who, described in (("the teacher", teacher and teacher.described), ("what this goes on from", start)):
        if described is not None:
            notes += _labels_known(who, run, described.get("run") or {}, data)
            if (described.get("run") or {}).get("dataset") == run.dataset:
                notes += _inherited(who, run, described.get("notes", []))
    return list(dict.fromkeys(notes))


def _sets_labels_aside(run: Run) -> bool:
    return (run.unlabelled or "").startswith("train:")


def _inherited(who: str, run: Run, notes: list[str]) -> list[str]:
    """What weights have seen goes on to all that are made with them; how their epoch was chosen does not."""
    kinds = ("transductive", "known labels") if _sets_labels_aside(run) else ("transductive",)
    parts = [note.partition(": ") for note in notes]
    return [f"{kind}: {who}: {told}" for kind, _, told in parts if kind in kinds]


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
    if not _sets_labels_aside(run):
        return []
    if not taught.get("dataset"):
        return [f"known labels: it is not known which labels {who} was trained with; here some are taken away"]
    if taught["dataset"] != run.dataset:
        return []
    whole = len(data.train) + len(data.unlabelled)
    same_parts = all(taught.get(field) == getattr(run, field) for field in ("val_fraction", "split_seed"))
    # of the same parts a larger share that is set aside holds a smaller one, but for an image or so per class
    if same_parts and labelled_count(taught.get("unlabelled"), whole) <= len(data.train):
        return []
    return [f"known labels: {who} was trained with labels of images that are here taken to have none"]

"""Which stored networks stand beside one another: a teacher and the students that were trained at one budget."""

from __future__ import annotations

from kdhelpers import artifacts
from kdhelpers.summary import budget_key, method_title, results
from kdhelpers.teachers import sidecar, teacher_name


def stored_students(
    dataset: str, student: str, teacher: str | None = None, seed: int = 0, names: str = ""
) -> dict[str, str]:
    """label -> artifact name of the students of one architecture and seed, in the order of the methods.

    Taken are students without a teacher and those of `teacher` (an architecture or a name), all trained at one budget:
    of several budgets the one with most students, then the newest. `names` (separated by spaces) picks them by hand,
    whatever their budget. Raises FileNotFoundError that names the notebooks to run where there are none.
    """
    frame = results(dataset)
    frame = frame[(frame["role"] == "student") & frame["name"].map(_is_usable)]
    if names:
        return _picked(frame, names.split(), dataset)
    taught_by = {"", teacher_name(teacher, dataset) if teacher else ""}
    frame = frame[(frame["model"] == student) & (frame["seed"] == seed) & frame["teacher"].isin(taught_by)]
    if frame.empty:
        raise FileNotFoundError(
            f"no student {student} of seed {seed} with its weights is stored for {dataset}; run the notebooks "
            "02_independent_student to 07_crd first (or `python -m kdhelpers suite`)"
        )
    budgets = frame.groupby(frame["setting"].map(budget_key))
    largest = max((group for _, group in budgets), key=lambda group: (len(group), group["finished"].max()))
    return _labelled(largest)


def _is_usable(name: str) -> bool:
    """Records come with the checkout, weights do not."""
    path = artifacts.weights_path(name)
    return path.is_file() and (sidecar(path) or {}).get("name") == name


def _picked(frame, names: list[str], dataset: str) -> dict[str, str]:
    if missing := [name for name in names if name not in set(frame["name"])]:
        known = ", ".join(frame["name"]) or "none"
        raise FileNotFoundError(f"students: {missing[0]} is not stored for {dataset} with its weights; known: {known}")
    return _labelled(frame.set_index("name", drop=False).loc[names])


def _labelled(frame) -> dict[str, str]:
    """In the order of the methods, each by its method's title; where several share it, by label; else by name."""
    from kdhelpers.methods import METHODS

    order = {method: place for place, method in enumerate(METHODS)}
    frame = frame.sort_values("method", key=lambda column: column.map(order), kind="stable")
    labels = frame["method"].map(method_title)
    for finer in (frame["label"], frame["name"]):
        labels = labels.where(~labels.duplicated(keep=False), finer)
    return dict(zip(labels, frame["name"], strict=True))

"""The overview: of each pair and budget the best student, and what it was compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdhelpers.display.text import magnitude_text, pace_text, spread_text
from kdhelpers.report.gallery.settings import Setting
from kdhelpers.report.paired import without_optimizer


@dataclass(frozen=True)
class Comparison:
    """The settings of one student, budget and teacher, and those without a teacher; `students`: best first.

    `other`: the best student of this pair and budget by another optimiser, if it is better than all of them.
    """

    students: list[Setting]
    pair: str
    other: Setting | None = None
    teacher_top1_pct: float | None = None
    teacher_macs: float | None = None

    @property
    def best(self) -> Setting:
        return self.students[0]

    @property
    def dataset(self) -> str:
        return self.best.row["dataset"]

    @property
    def budget(self) -> str:
        return self.best.budget

    @property
    def accuracy(self) -> str:
        return _accuracy(self.best)

    @property
    def by_another_optimiser(self) -> str:
        """`68.11 ± 1.69 %, +5.92 ± 2.98 points over CE (no teacher) by SGD (3 seeds)`; empty without one."""
        return f"{_accuracy(self.other)} %, {self.other.gain_sentence}" if self.other else ""

    @property
    def teacher(self) -> str:
        return "–" if self.teacher_top1_pct is None else f"{self.teacher_top1_pct:.2f}"

    @property
    def cost(self) -> str:
        """`84 k parameters, 12.5 M MACs (31 % of the teacher's), 82 s per epoch`."""
        row = self.best.row
        share = f" ({100 * row['macs'] / self.teacher_macs:.0f} % of the teacher's)" if self.teacher_macs else ""
        seconds, _, lockstep = pace_text(row["seconds_per_epoch"], row["lockstep"]).partition(" ")
        pace = "" if seconds == "–" else f", {seconds} s per epoch {lockstep}".rstrip()
        return f"{magnitude_text(row['parameters'])} parameters, {magnitude_text(row['macs'])} MACs{share}{pace}"

    @property
    def compared(self) -> str:
        """`8 settings: CRD · DKD · KD; n = 3 seeds`."""
        count, seeds = len(self.students), sorted({setting.row["n"] for setting in self.students})
        methods = " · ".join(sorted({setting.method for setting in self.students}))
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return f"{count} settings: {methods}; n = {n} seed{'s' * (seeds[-1] > 1)}"


def comparisons(settings: Sequence[Setting]) -> list[Comparison]:
    """A comparison per data set, student, budget and teacher with at least two settings; those of most settings first.

    A student without a teacher stands in the comparison of each teacher of its budget.
    """
    teachers = _teacher_facts(settings)
    groups: dict[tuple, list[Setting]] = {}
    for setting in settings:
        if setting.is_student and not setting.is_control:
            groups.setdefault((setting.budget_key, setting.teacher_sha256), []).append(setting)
    found = []
    for (budget, teacher), own in groups.items():
        alone = groups.get((budget, None), [])
        if teacher is None and any(key == budget and sha256 for key, sha256 in groups):
            continue
        students = sorted(own if teacher is None else own + alone, key=lambda one: -one.row["test_top1_pct"])
        if len(students) > 1:
            other = _by_another_optimiser(settings, budget, teacher, students[0])
            found.append(Comparison(students, own[0].pair, other, *teachers.get(teacher, (None, None))))
    return sorted(found, key=lambda one: (-len(one.students), one.dataset, one.pair, one.budget))


def _by_another_optimiser(
    settings: Sequence[Setting], budget: str, teacher: str | None, best: Setting
) -> Setting | None:
    """A student without a gain does not count: nothing separates its optimiser from its method."""
    better = [
        one
        for one in settings
        if one.row["baseline"] and not one.is_control and one.teacher_sha256 == teacher
        if without_optimizer(one.budget_key) == without_optimizer(budget)
        if one.row["test_top1_pct"] > best.row["test_top1_pct"]
    ]
    return max(better, key=lambda one: one.row["test_top1_pct"], default=None)


def _accuracy(setting: Setting) -> str:
    row = setting.row
    return spread_text(row["test_top1_pct"], row["test_top1_std_pct"], row["n"])


def _teacher_facts(settings: Sequence[Setting]) -> dict[str | None, tuple]:
    """sha256 of a teacher -> its accuracy, and its MACs if its record is stored."""
    macs = {
        (record.get("weights") or {}).get("sha256"): (record.get("model") or {}).get("macs")
        for setting in settings
        for record in setting.records
    }
    return {
        setting.teacher_sha256: (setting.records[0]["teacher"].get("test_top1_pct"), macs.get(setting.teacher_sha256))
        for setting in settings
        if setting.teacher_sha256 and setting.records
    }

"""What `real` may train: phases of runs in lockstep, by the recipe of the CRD benchmark, best plan first."""

from __future__ import annotations

from typing import Any, NamedTuple

from kdhelpers import Run

LARGE_PAIR, SMALL_PAIR = ("vgg13", "vgg8"), ("resnet20", "resnet8")
METHODS: dict[str, dict[str, Any]] = {
    "si": {"method": "si"},
    "ls": {"method": "ls"},
    "kd": {"method": "lm", "hyperparameters": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}},
    "dkd": {"method": "dkd", "hyperparameters": {"beta": 6.0, "warmup_epochs": 20.0}},
    "kd_ls": {"method": "lm_standardized", "hyperparameters": {"temperature": 3.0, "ce_weight": 0.1, "kd_weight": 9.0}},
    "crd": {"method": "crd", "hyperparameters": {"temperature": 0.07, "crd_weight": 0.8, "negatives": 16384}},
}


class Plan(NamedTuple):
    """The methods of the students that train with the teacher, then of the students that it teaches."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]


PLANS = (
    Plan("A with CRD", ("si", "ls"), ("kd", "dkd", "crd")),
    Plan("A with KD+LS", ("si",), ("kd", "dkd", "kd_ls")),
    Plan("A", ("si",), ("kd", "dkd")),
    Plan("A without DKD", ("si",), ("kd",)),
    Plan("teacher and SI", ("si",), ()),
)


class Recipe(NamedTuple):
    dataset: str
    epochs: int
    precision: str
    teacher: str
    student: str

    def phases(self, plan: Plan) -> list[list[Run]]:
        phases = [[self.teacher_run(), *(self.student_run(method) for method in plan.first)]]
        return [*phases, [self.student_run(method) for method in plan.second]] if plan.second else phases

    @property
    def teacher_name(self) -> str:
        return self.teacher_run().artifact_name

    def teacher_run(self) -> Run:
        return Run(model=self.teacher, role="teacher", **self._common())

    def student_run(self, method: str) -> Run:
        fields = METHODS[method]
        taught = fields["method"] not in ("si", "ls")
        source = f"_from_{self.teacher}" if taught else ""
        name = f"student_{method}{source}_{self.student}_{self.dataset}"
        teacher = {"teacher": self.teacher_name} if taught else {}
        return Run(model=self.student, name=name, **fields, **teacher, **self._common())

    def _common(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "epochs": self.epochs,
            "precision": self.precision,
            "lr": 0.05,
            "schedule": "multistep",
            "schedule_options": {"milestones": [self.epochs * part / 240 for part in (150, 180, 210)]},
            "batch_size": 64,
            "augmentation": "crop flip",
            "val_fraction": 0,
            "selection": "last",
        }

"""`Run`: the frozen, validated description of one training; its id and the name of its artifacts."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from kdhelpers import artifacts
from kdhelpers.data import DATASETS, check_unlabelled, parse_recipe
from kdhelpers.methods import METHODS
from kdhelpers.models import check_model
from kdhelpers.training.optim import OPTIMIZERS, SCHEDULES, check_optimizer_options, learning_rate

LATER = {
    "start_from",
    "unlabelled",
    "unlabelled_batch_size",
}  # fields that came after records were published, whose runs must keep their ids
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on")  # as pydantic reads a bool


class Run(BaseModel):
    """Everything scientific about one training. Checked on creation: ValueError names the field, value and remedy.

    Strings are coerced ("1e-3" is 0.001: papermill passes them so). Method, optimiser and schedule options are
    checked against those functions' signatures and completed with their defaults, so a default that is spelled out
    gives the same `id` as one left out. `name` renames the artifacts and is no part of the id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    dataset: str = Field("digits", description="registered data set, or a folder under the data root")
    image_size: int | None = Field(None, ge=8, le=1024, description="side in pixels; None keeps the data set's own")
    val_fraction: float = Field(0.1, ge=0, le=0.5, description="share of the training images held out for selection")
    split_seed: int = Field(0, ge=0, description="which held-out images")
    unlabelled: str | None = Field(
        None, description="images without labels: test, train:<count> (below 0: all but), a path"
    )
    unlabelled_batch_size: int | None = Field(None, ge=2, le=65_536, description="of those per step; None: batch_size")
    model: str = Field("resnet8", description="architecture of the network that is trained")
    model_options: dict[str, Any] = Field({}, description='e.g. {"stem": "cifar"}, or the text "stem:cifar"')
    pretrained: bool = Field(False, description="start from torchvision's ImageNet weights")
    start_from: str | None = Field(None, description="trained weights to go on from: fine-tuning; None starts afresh")
    role: Literal["teacher", "student"] = Field("student", description="what the network is for; part of its name")
    teacher: str | None = Field(None, description="architecture of a trained teacher, or name or path of weights")
    method: str = Field("si", description="distillation method")
    hyperparameters: dict[str, Any] = Field({}, description="the method's own parameters")
    optimizer: str = Field("sgd", description="optimiser")
    lr: float = Field(0.05, gt=0, le=100, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, le=100, description="weight decay")
    optimizer_options: dict[str, Any] = Field({}, description='e.g. {"nesterov": True}')
    schedule: str = Field("cosine", description="learning-rate schedule")
    schedule_options: dict[str, Any] = Field({}, description='e.g. {"milestones": [150, 180, 210]}')
    warmup_epochs: float = Field(0, ge=0, description="epochs of linear warm-up")
    epochs: int = Field(8, ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(64, ge=2, le=65_536, description="images per step, over all devices together")
    augmentation: str = Field("crop flip", description='steps such as "crop=4 flip cutout=8"; "none" for none')
    seed: int = Field(0, ge=0, lt=2**31, description="weights, order and augmentation draws")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16, else fp16, else fp32")
    selection: Literal["best_val", "last"] = Field("best_val", description="which epoch's weights are kept")
    name: str | None = Field(None, description="name of the weight file; None derives it")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_one_line(error)) from None

    @field_validator("dataset")
    @classmethod
    def _dataset_exists(cls, value: str) -> str:
        a_name = re.fullmatch(r"[A-Za-z0-9][\w.+-]*", value)
        if value not in DATASETS and not (a_name and (artifacts.data_root() / value).is_dir()):
            raise ValueError(f"is neither registered ({', '.join(DATASETS)}) nor a folder in {artifacts.data_root()}")
        return value

    @field_validator("unlabelled")
    @classmethod
    def _unlabelled_exists(cls, value: str | None) -> str | None:
        if value is not None:
            check_unlabelled(value)
        return value

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str | None) -> str | None:
        if value is not None and (
            not re.fullmatch(r"[A-Za-z0-9][\w.=+-]*", value) or value.endswith((".pth", ".json"))
        ):
            raise ValueError("is no file name without extension; use letters, digits and . _ - = + only")
        return value

    @field_validator("augmentation")
    @classmethod
    def _augmentation_is_known(cls, value: str) -> str:
        return str(parse_recipe(value))

    @model_validator(mode="before")
    @classmethod
    def _options_fit(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Check each name against its registry and each option against the signature of what it configures."""
        values = {name: field.default for name, field in cls.model_fields.items()} | dict(values)
        if isinstance(values["model_options"], str):
            values["model_options"] = named_values(values["model_options"], "model_options", '"base_channels:16"')
        for name in ("teacher", "name", "start_from", "unlabelled"):
            values[name] = values[name] or None  # papermill passes "" for none
        for field, registry, options in (
            ("method", METHODS, "hyperparameters"),
            ("optimizer", OPTIMIZERS, "optimizer_options"),
            ("schedule", SCHEDULES, "schedule_options"),
        ):
            name, given = values[field], values[options] or {}
            if isinstance(name, str) and isinstance(given, dict):  # else pydantic says what is wrong
                _known(field, name, registry)
                values[options] = complete_options(registry[name], given, f"{options} of {name}")
        if isinstance(values["model"], str) and isinstance(values["model_options"] or {}, dict):
            pretrained = values["pretrained"] in (True, 1) or str(values["pretrained"]).lower() in TRUE_WORDS
            values["model_options"] = check_model(values["model"], pretrained, values["model_options"])
        return values

    @model_validator(mode="after")
    def _parts_agree(self) -> Run:
        method = METHODS[self.method](**self.hyperparameters)  # its own range checks, and the other parts' own
        check_optimizer_options(self.optimizer_options)
        learning_rate(self.schedule, self.schedule_options, self.lr, 0, self.epochs)
        if method.needs_teacher and not self.teacher:
            raise ValueError(
                f"teacher: method {self.method} needs one; give the architecture of a trained one, "
                "e.g. resnet20 (notebook 01_teacher trains it), or the name of its weights"
            )
        if self.teacher and not method.needs_teacher:
            raise ValueError(f"teacher = {self.teacher}: method {self.method} uses none; leave it out")
        if method.uses_unlabelled and not self.unlabelled:
            raise ValueError(
                f"unlabelled: method {self.method} learns from images without labels; give test, train:16000, or a path"
            )
        if self.unlabelled_batch_size and not self.unlabelled:
            raise ValueError(
                f"unlabelled_batch_size = {self.unlabelled_batch_size}: of no images; name unlabelled ones"
            )
        if self.selection == "best_val" and self.val_fraction == 0:
            raise ValueError(
                "val_fraction = 0: selection best_val needs held-out images; raise it or take selection last"
            )
        if self.start_from and self.pretrained:
            raise ValueError(f"start_from = {self.start_from}: excludes pretrained = True; a network starts from one")
        if not method.trains_classifier and self.selection == "best_val":
            raise ValueError(
                f"selection = best_val: {self.method} leaves the classifier to a probe at the end, so no epoch can be "
                "scored before; take selection last"
            )
        if method.views > 1 and self.augmentation in ("none", "flip"):
            raise ValueError(
                f"augmentation = {self.augmentation}: {self.method} compares {method.views} views of an image, which "
                'would be equal, all or half of them; name steps such as "crop flip"'
            )
        if method.stage_epochs >= self.epochs:
            raise ValueError(
                f"epochs = {self.epochs}: must be more than the {method.stage_epochs} of {self.method}'s first stage"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs}: must be less than epochs = {self.epochs}")
        return self

    @property
    def network_options(self) -> dict[str, Any]:
        """What `build_model` takes besides the name and the number of classes."""
        return {**self.model_options, **({"pretrained": True} if self.pretrained else {})}

    @property
    def id(self) -> str:
        """sha256 of the canonical JSON of all fields but the name; a field of LATER counts once it is set."""
        unset = {field for field in LATER if getattr(self, field) is None}
        canonical = json.dumps(self.model_dump(exclude={"name"} | unset), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def artifact_name(self) -> str:
        """Stem of the weight file and the record, e.g. student_lm_resnet8_cifar100_seed1."""
        method = "" if self.role == "teacher" else f"_{self.method}"
        start = Path(self.start_from or "").name.removesuffix(".pth")
        tuned = f"_from_{start}" if start else ""  # a teacher's plain name is not for it
        stem = self.name or f"{self.role}{method}_{self.model}_{self.dataset}{tuned}"
        return f"{stem}_seed{self.seed}" if self.seed else stem


def _known(field: str, name: Any, registry: Mapping[str, Any]) -> None:
    if name not in registry:
        close = get_close_matches(str(name), registry, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{field} = {name}: unknown; {hint}known: {', '.join(registry)}")


def named_values(text: str, what: str, example: str) -> dict[str, str]:
    """{"alpha": "1", "beta": "12"} of "alpha=1 beta=12", or of "alpha:1 beta:12", as papermill reads no parameter whose
    line has a second equals sign. Raises ValueError for other text, and for a name twice."""
    pairs = [word.partition("=" if "=" in word else ":") for word in text.split()]
    if bad := [name + sign for name, sign, value in pairs if not (name and sign and value)]:
        raise ValueError(f"{what}: {bad[0]!r} in {text.strip()!r} is no name=value; write for instance {example}")
    named = {name: value for name, _, value in pairs}
    if len(named) < len(pairs):
        raise ValueError(f"{what}: {text.strip()!r} gives a value twice; keep one")
    return named


def complete_options(target: Callable, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The keyword-only parameters of `target`: `given` values coerced to the annotated types, defaults for the rest."""
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(given) - set(parameters)):
        raise ValueError(f"{what}: unknown {', '.join(unknown)}; known: {', '.join(parameters) or 'none'}")
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    complete = {}
    for name, parameter in parameters.items():
        try:
            value = TypeAdapter(hints[name]).validate_python(given.get(name, parameter.default))
        except ValidationError as error:
            raise ValueError(f"{what}: {name} = {given[name]!r}: {error.errors()[0]['msg']}") from None
        complete[name] = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
    return complete


def _one_line(error: ValidationError) -> str:
    """Every problem of a pydantic error as `field = value: what is allowed`."""
    problems = []
    for problem in error.errors():
        field, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field; known: {', '.join(Run.model_fields)}"
        problems.append(f"{field} = {problem['input']!r}: {message}" if field else message)
    return "Run: " + "; ".join(problems)

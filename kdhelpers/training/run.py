"""`Run`: the frozen, validated description of one training; its id and the name of its artifacts."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kdhelpers import artifacts
from kdhelpers.data import DATASETS, check_unlabelled, parse_recipe, unknown_dataset
from kdhelpers.messages import short
from kdhelpers.methods import METHODS, Method
from kdhelpers.models import check_model, default_options
from kdhelpers.nearest import check_known, known_names
from kdhelpers.python_paths import is_python_path, mark, use_network
from kdhelpers.training.optim import OPTIMIZERS, SCHEDULES
from kdhelpers.training.options import complete_options, named_values, option_defaults
from kdhelpers.training.published import is_published, published_hyperparameters
from kdhelpers.training.run_checks import check_parts

SHOWN = 5  # problems that a message names
LONGEST = 500  # characters of a text
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on")  # as pydantic reads a bool
WEIGHT_NAMES = ("teacher", "start_from")  # the content of these weights counts, not their names
PUBLISHED_EXAMPLE = 'write {"temperature": 2}, published, or a pair such as resnet56>resnet20, without blanks'
OPTIONS = {  # field with options -> the field that names what they configure, and its registry
    "hyperparameters": ("method", METHODS),
    "optimizer_options": ("optimizer", OPTIMIZERS),
    "schedule_options": ("schedule", SCHEDULES),
}


class Run(BaseModel):
    """Everything scientific about one training. Checked on creation: ValueError names the field, value and remedy.

    Strings are coerced, since papermill passes 1e-3 as "1e-3". Options are checked against the signature of the method,
    optimiser or schedule and completed with its defaults. The text `published` or a pair of networks stands for the
    method's published hyperparameters (see `published.py`): the run holds the mapping. `name` renames the artifacts and
    does not change the `id`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    dataset: str = Field("digits", description="registered data set, or a folder under the data root")
    image_size: int | None = Field(None, ge=8, le=1024, description="side in pixels; None keeps the data set's own")
    val_fraction: float = Field(0.1, ge=0, le=0.5, description="share of the training images held out for selection")
    split_seed: int = Field(0, ge=0, description="which held-out images")
    unlabelled: str | None = Field(
        None, description="images without labels: test, train:<count> (below 0: all except), a path"
    )
    unlabelled_batch_size: int | None = Field(
        None, ge=2, le=65_536, description="unlabelled images per step; None: batch_size"
    )
    model: str = Field(
        "resnet8", description="architecture: a name of `list models`, torchvision:NAME, timm:NAME, my_models:TinyNet"
    )
    model_options: dict[str, Any] = Field({}, description='e.g. {"stem": "cifar"}, or the text "stem:cifar"')
    pretrained: bool = Field(False, description="start from the weights of the network's library, such as ImageNet's")
    start_from: str | None = Field(None, description="trained weights to fine-tune; None starts from random ones")
    role: Literal["teacher", "student"] = Field("student", description="what the network is for; part of its name")
    teacher: str | None = Field(None, description="architecture of a trained teacher, or name or path of weights")
    other_image_size: bool = Field(
        False, description="take a teacher of another image size; its accuracy on these images is measured and recorded"
    )
    method: str = Field("si", description="distillation method")
    hyperparameters: dict[str, Any] = Field(
        {}, description="the method's own parameters; `published` or a pair such as resnet56>resnet20 fills them in"
    )
    placebo: Literal["", "shuffled", "mean"] = Field(
        "", description="control: the teacher's outputs shuffled among the images of a batch, or their mean"
    )
    optimizer: str = Field("sgd", description="optimiser")
    lr: float = Field(0.05, gt=0, le=100, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, le=100, description="weight decay")
    optimizer_options: dict[str, Any] = Field({}, description='e.g. {"nesterov": True}')
    schedule: str = Field("cosine", description="learning-rate schedule")
    schedule_options: dict[str, Any] = Field({}, description='e.g. {"milestones": [150, 180, 210]}')
    warmup_epochs: float = Field(0, ge=0, description="epochs of linear warm-up")
    epochs: int = Field(8, ge=0, le=100_000, description="passes over the training split; 0: an untrained teacher")
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

    @classmethod
    def model_validate_json(cls, json_data: str | bytes) -> Run:
        """A Run of JSON text, which imports no code: Python paths in it must have been given before."""
        return cls(**mark(json.loads(json_data)))

    @field_validator("dataset")
    @classmethod
    def _dataset_exists(cls, value: str) -> str:
        a_name = re.fullmatch(r"[A-Za-z0-9][\w.+-]*", value)
        if value not in DATASETS and not (a_name and (artifacts.data_root() / value).is_dir()):
            raise ValueError(unknown_dataset(value))
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
            raise ValueError("is not a file name without extension; use letters, digits and . _ - = + only")
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
        for name, value in values.items():
            if isinstance(value, str) and len(value) > LONGEST:
                raise ValueError(
                    f"{short(name)} = {short(value)}: has {len(value):,} characters; take {LONGEST} at most"
                )
        for name in ("teacher", "name", "start_from", "unlabelled", "image_size", "unlabelled_batch_size"):
            values[name] = None if values[name] in ("", 0, "0") else values[name]  # papermill passes "" or 0 for none
        for options, (field, registry) in OPTIONS.items():
            name, given = values[field], values[options] or {}
            if options == "hyperparameters" and isinstance(given, str) and not is_published(given):
                raise ValueError(f"{options} = {given}: is not a mapping, `published` or a pair; {PUBLISHED_EXAMPLE}")
            if isinstance(name, str) and (isinstance(given, dict) or is_published(given)):  # else pydantic reports it
                check_known(field, name, registry)
                given = given if isinstance(given, dict) else published_hyperparameters(given, values)
                values[options] = complete_options(registry[name], given, f"{options} of {name}")
        for path in filter(is_python_path, (values["model"], values["teacher"])):
            use_network(path)
        if isinstance(values["model"], str) and isinstance(values["model_options"] or {}, dict):
            pretrained = values["pretrained"] in (True, 1) or str(values["pretrained"]).lower() in TRUE_WORDS
            values["model_options"] = check_model(values["model"], pretrained, values["model_options"])
        if isinstance(values["name"], str):
            values["name"] = artifacts.file_name(values["name"])  # it may contain the name of a network
        return values

    @model_validator(mode="after")
    def _parts_agree(self) -> Run:
        check_parts(self)
        return self

    @property
    def network_options(self) -> dict[str, Any]:
        """The options of `build_model`."""
        return {**self.model_options, **({"pretrained": True} if self.pretrained else {})}

    def build_method(self) -> Method:
        return METHODS[self.method](**self.hyperparameters)

    @property
    def method_name(self) -> str:
        """The method in names of artifacts: dkd, dkd_placebo_shuffled."""
        return f"{self.method}_placebo_{self.placebo}" if self.placebo else self.method

    @property
    def id(self) -> str:
        """sha256 of the canonical JSON of all fields that differ from their defaults, except the name."""
        names = {name: getattr(self, name) for name in WEIGHT_NAMES if getattr(self, name)}
        canonical = json.dumps(distinctive(self.model_dump()) | names, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def artifact_name(self) -> str:
        """Stem of the weight file and the record, e.g. student_lm_resnet8_cifar100_seed1."""
        method = "" if self.role == "teacher" else f"_{self.method_name}"
        start = Path(self.start_from or "").name.removesuffix(".pth")
        tuned = f"_from_{start}" if start else ""
        role = self.role if self.epochs else "untrained"  # not teacher_<model>, which means the trained one
        stem = artifacts.file_name(self.name or f"{role}{method}_{self.model}_{self.dataset}{tuned}")
        return f"{stem}_seed{self.seed}" if self.seed else stem


def distinctive(run: dict) -> dict:
    """The fields of a run, as records store it, that differ from their defaults; options without their own defaults.

    Left out are the name and the names of weights. Fields and options that came later, or no longer exist, make no
    difference at their default, so runs keep their identity from version to version.
    """
    fields = {}
    for field, value in run.items():
        if field in (*OPTIONS, "model_options") and isinstance(value, dict):
            defaults = _default_options(run, field)
            value = {name: option for name, option in value.items() if defaults.get(name, _MISSING) != option}
        default = Run.model_fields[field].default if field in Run.model_fields else None
        if field not in ("name", *WEIGHT_NAMES) and value != default:
            fields[field] = value
    return fields


_MISSING = object()


def _default_options(run: dict, field: str) -> dict[str, Any]:
    if field == "model_options":
        return default_options(run.get("model"))
    name_field, registry = OPTIONS[field]
    return option_defaults(registry[run[name_field]]) if run.get(name_field) in registry else {}


def _one_line(error: ValidationError) -> str:
    """Every problem of a pydantic error as `field = value: what is allowed`."""
    problems = []
    for problem in error.errors():
        field, message = short(".".join(map(str, problem["loc"]))), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field; {known_names(field, Run.model_fields)}"
        problems.append(f"{field} = {short(repr(problem['input']))}: {message}" if field else message)
    more = [f"{len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
    return "Run: " + "; ".join([*problems[:SHOWN], *more])

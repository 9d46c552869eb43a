"""The fields of a result record that its readers take, and their types: checked once, where a record is read."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from kdhelpers.artifacts.records import SCHEMA
from kdhelpers.messages import short

SHOWN = 3  # faults of a record that its message names
WORDS = {"model_type": "is not a JSON object", "missing": "is missing"}  # in place of those of pydantic
WORDS |= {"string_pattern_mismatch": "has characters that it must not have, such as control characters"}
NAME = r"^[^/\\\x00-\x1f]+$"  # of a file, in its folder
MOST_CLASSES, MOST_PIXELS = 2**20, 2**14  # of a network; of the side of its images
# Without what a terminal or a page obeys: control characters and marks of direction.
LINE = "^[^\\x00-\\x1f\\x7f-\\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]*$"
REMEDY = "correct the file, or delete it and train again"

Line = Annotated[str, Field(pattern=LINE)]
Word = Annotated[str, Field(min_length=1, pattern=LINE)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]
Options = dict[str, Any] | None
Texts = list[Line] | None


class _Part(BaseModel):
    """Fields may be missing or null: records of other versions, and of weights made elsewhere, have fewer or more."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class _Run(_Part):
    dataset: Line
    model: Line
    role: Literal["teacher", "student"]
    method: Line | None = None
    teacher: Line | None = None
    start_from: Line | None = None
    placebo: Line | None = None
    unlabelled: Line | None = None
    name: Line | None = None
    hyperparameters: Options = None
    model_options: Options = None
    optimizer_options: Options = None
    schedule_options: Options = None
    optimizer: Line | None = None
    schedule: Line | None = None
    augmentation: Line | None = None
    precision: Line | None = None
    selection: Line | None = None
    lr: Amount | None = None
    weight_decay: Amount | None = None
    warmup_epochs: Amount | None = None
    val_fraction: Amount | None = None
    seed: Count = 0
    split_seed: Count | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    unlabelled_batch_size: Count | None = None
    image_size: Count | None = None
    pretrained: bool | None = None
    other_image_size: bool | None = None


class _Source(_Part):
    """Weights that a training began with, or learned from."""

    name: Line | None = None
    sha256: Line | None = None
    model: Line | None = None
    test_top1_pct: Percent | None = None
    own_test_top1_pct: Percent | None = None
    notes: Texts = None
    untrained: bool | None = None


class _Data(_Part):
    name: Line | None = None
    hash: Line | None = None
    test_split: Line | None = None
    image_size: Count | None = None
    classes: Count | None = None
    train: Count | None = None
    val: Count | None = None
    test: Count | None = None
    unlabelled: Count | None = None


class _Environment(_Part):
    device: Line | None = None
    device_name: Line | None = None
    precision: Line | None = None
    started: Line | None = None
    finished: Line | None = None
    kdhelpers: Line | None = None


class _Size(_Part):
    parameters: Count | None = None
    macs: Count | None = None
    extra_parameters: Number | None = None


class _Selection(_Part):
    rule: Line | None = None
    epoch: Count | None = None


class _Metrics(_Part):
    test_top1_pct: Percent | None = None
    test_top5_pct: Percent | None = None
    test_ece_pct: Percent | None = None
    val_top1_pct: Percent | None = None
    test_nll: Number | None = None
    train_seconds: Amount | None = None
    seconds_per_epoch: Amount | None = None
    images_per_second: Amount | None = None
    peak_memory_mib: Amount | None = None
    lockstep: Amount | None = None


class _File(_Part):
    file: Line | None = None
    sha256: Line | None = None


class _Trial(_Part):
    study: str
    key: str
    number: Count
    values: dict[str, Any]


class _Record(_Part):
    schema_: Literal[SCHEMA] = Field(alias="schema")
    name: Word
    identity: Word
    status: Word
    error: str | None = None
    command: str | None = None
    notebook: Line | None = None
    run: _Run | None = None
    teacher: _Source | None = None
    start: _Source | None = None
    data: _Data | None = None
    environment: _Environment | None = None
    model: _Size | None = None
    selection: _Selection | None = None
    metrics: _Metrics | None = None
    weights: _File | None = None
    head: _File | None = None
    history: list[dict[str, Number | None]] | None = None
    probe: dict[str, Number | None] | None = None
    notes: Texts = None
    resumed: Texts = None
    origin: Options = None
    library: Options = None
    trial: _Trial | None = None

    @model_validator(mode="before")
    @classmethod
    def _schema_is_known(cls, content: Any) -> Any:
        """Another schema may have other fields: that it differs is the one fault to name."""
        if isinstance(content, dict) and content.get("schema") != SCHEMA:
            message = "schema = {found}: this version reads {known}"
            raise PydanticCustomError(
                "schema", message, {"found": short(repr(content.get("schema")), 40), "known": SCHEMA}
            )
        return content


class _Description(_Part):
    """The sidecar of weights. Those of earlier versions, and of weights made elsewhere, have fewer fields."""

    sha256: str
    name: Annotated[str, Field(pattern=NAME)] | None = None
    identity: Line | None = None
    copy_of: Annotated[str, Field(pattern=NAME)] | None = None
    run: _Run | None = None
    model: Word | None = None
    model_options: dict[str, Any] = {}
    num_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None
    class_names: list[str] | None = None
    image_size: Annotated[int, Field(ge=1, le=MOST_PIXELS)] | None = None
    mean: Annotated[list[Number], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    pixel_ranges: dict[Literal["I", "F"], Annotated[list[Number], Field(min_length=2, max_length=2)]] | None = None
    test_top1_pct: Percent | None = None
    teacher: _Source | None = None
    selection: _Selection | None = None
    head: _File | None = None
    notes: Texts = None
    origin: Options = None
    library: Options = None

    @model_validator(mode="after")
    def _classes_have_names(self) -> Self:
        if self.num_classes and self.class_names is not None and len(self.class_names) != self.num_classes:
            numbers = {"names": len(self.class_names), "classes": self.num_classes}
            raise PydanticCustomError("count", "class_names: has {names} names for {classes} classes", numbers)
        return self


def check_record(path: Path, content: Any) -> None:
    """Raises ValueError that names the file, each wrong field with its value, and the remedy."""
    record = _validated(_Record, path, content, REMEDY)
    if Path(f"{record.name}.json").parts != path.parts[-1 - record.name.count("/") :] or ".." in record.name.split("/"):
        fault = f"name = {short(record.name)!r}: is not the name of the file"  # a trial has that of its study before it
        raise ValueError(f"{path}: {fault}; rename the file, or delete it")


def check_description(path: Path, content: Any) -> None:
    """`check_record` of a sidecar, whose `sha256` need not be that of the weights."""
    _validated(_Description, path, content, "restore the file, or delete it and name the architecture yourself")


def _validated(kind: type[_Part], path: Path, content: Any, remedy: str) -> Any:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False)]
        more = [f"{len(faults) - SHOWN} more"] * (len(faults) > SHOWN)
        raise ValueError(f"{path}: {', '.join([*faults[:SHOWN], *more])}; {remedy}") from None


def _fault(error: dict) -> str:
    field, kind = short(".".join(map(str, error["loc"]))), error["type"]
    message = WORDS.get(kind) or error["msg"][:1].lower() + error["msg"][1:]
    value = "" if kind in ("missing", "schema") or not field else f" = {short(repr(error['input']), 40)}"
    return f"{field}{value}: {message}" if field else message

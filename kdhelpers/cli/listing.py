"""`python -m kdhelpers list`: all names that a `Run` or a command takes, in sections that fit 80 columns."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from textwrap import fill
from typing import Any

from kdhelpers.artifacts import damaged, records, state
from kdhelpers.display.text import MARK, state_text
from kdhelpers.messages import inform
from kdhelpers.nearest import check_known, guess

WIDTH = 80
HEADS = {"runs": ("test top-1 (%)", "run")}


@dataclass(frozen=True)
class Row:
    """A row of a section: `below` is under it, `full` makes the lines of a row that is shown alone.

    A filter searches the cells and `words`.
    """

    name: str
    cells: tuple[str, ...]
    below: str = ""
    full: Callable[[], str] | None = None
    words: str = ""

    def contains(self, text: str) -> bool:
        return any(text.lower() in cell.lower() for cell in (*self.cells, self.words))


def listing(section: str, text: str = "") -> str:
    """A section; only its rows that contain `text`, or the row of that name. Raises ValueError if there are none."""
    check_known("section", section, SECTIONS)
    rows = SECTIONS[section]()
    kept = [row for row in rows if row.name == text] or [row for row in rows if row.contains(text)]
    if text and not kept:
        near = guess(text, [row.name for row in rows], 3)
        if section == "models":
            near += '`network "timm:TEXT*"` and `network "torchvision:TEXT*"` search other libraries; '
        raise ValueError(f"filter = {text}: no row of {section} contains it; {near}`list {section}` shows all rows")
    if text and len(kept) == 1 and kept[0].full:
        return f"{table([kept[0].cells])}\n{kept[0].full()}"
    heads = [Row("", HEADS[section])] if kept and section in HEADS else []
    return "\n".join(_with_lines_below(heads + kept)) or "none yet"


def overview() -> str:
    """Every section with its number of names, and the names; of the runs how many each data set has."""
    lines = []
    for section, rows_of in SECTIONS.items():
        rows = rows_of()
        names = ", ".join(row.name for row in rows)
        if section == "runs":
            counts = Counter(record.get("run", {}).get("dataset", "unknown data") for record in records())
            names = ", ".join(f"{count} on {dataset}" for dataset, count in counts.most_common())
        lines.append((section, str(len(rows)), names or "none yet"))
    return f"{table(lines)}\n\nDetails: python -m kdhelpers list SECTION [FILTER], such as `list runs cifar100`"


def table(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells as aligned text; the last cell is wrapped."""
    return "\n".join(_aligned([tuple(row) for row in rows]))


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    heads = ["".join(cell.ljust(width) + "  " for cell, width in zip(row, widths, strict=False)) for row in rows]
    return [wrapped(head + row[-1], len(head)) for head, row in zip(heads, rows, strict=True)]


def wrapped(text: str, indent: int = 4) -> str:
    options = {"break_on_hyphens": False, "break_long_words": False, "drop_whitespace": True}
    return fill(text, WIDTH, subsequent_indent=" " * indent, **options)


def _named(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _with_lines_below(rows: list[Row]) -> Iterable[str]:
    for line, row in zip(_aligned([row.cells for row in rows]) if rows else [], rows, strict=True):
        yield line
        if row.below:
            yield wrapped(f"    {row.below}")


def _notebooks() -> list[Row]:
    from kdhelpers.suite.notebooks import notebook_names, notebooks_folder, parameters_of, title_of

    rows = []
    for name in notebook_names():
        path = notebooks_folder() / f"{name}.ipynb"
        parameters = parameters_of(path)
        below = _named(parameters)
        rows.append(Row(name, (name, title_of(path)), below, partial(_parameters, path), " ".join(parameters)))
    return rows


def _parameters(notebook) -> str:
    """A line per parameter: name, default, meaning."""
    from kdhelpers.suite.notebooks import meanings_of, parameters_of

    meanings = meanings_of(notebook)
    rows = [(f"  {name} = {default}", meanings.get(name, "")) for name, default in parameters_of(notebook).items()]
    return table(rows) if rows else "  it has no parameters"


def _profiles() -> list[Row]:
    from kdhelpers.suite.profiles import load_profile, profile_names, summary_of

    rows = []
    for name in profile_names():
        try:
            jobs = load_profile(name)
            names = "\n".join(f"  {job.name}" for job in jobs)
            rows.append(Row(name, (name, f"{len(jobs)} jobs", summary_of(name)), full=partial(str, names)))
        except ValueError as error:  # the other profiles follow
            rows.append(Row(name, (name, "faulty", str(error))))
    return rows


def _data() -> list[Row]:
    from kdhelpers.data import DATASETS, known_datasets

    names, other = known_datasets()
    folder = other.removeprefix("or the name of ")
    texts = {name: source.description for name, source in DATASETS.items()}
    return [Row(name, (name, texts.get(name, folder))) for name in names]


def _models() -> list[Row]:
    from kdhelpers.models import MODELS, default_options

    rows = []
    for name, architecture in MODELS.items():
        options = _named(default_options(name))
        weights = "ImageNet weights" * architecture.pretrained
        rows.append(Row(name, (name, weights, options), full=partial(_model, name)))
    return rows


def _model(name: str) -> str:
    """The number of parameters, and the values of every option."""
    import torch

    from kdhelpers.models import MODELS, build_model, count_parameters

    with torch.device("meta"):  # shapes alone
        parameters = count_parameters(build_model(name, 100))
    options = [
        (f"  {option}", f"one of {', '.join(allowed)}" if isinstance(allowed, tuple) else str(allowed))
        for option, allowed in MODELS[name].options.items()
    ]
    return "\n".join([f"  {parameters:,} parameters with 100 classes", *([table(options)] if options else [])])


def _methods() -> list[Row]:
    from kdhelpers.methods import METHODS
    from kdhelpers.report.labels import method_title

    return [
        Row(name, (name, method_title(name), _summary(method)), full=partial(_hyperparameters, name))
        for name, method in METHODS.items()
    ]


def _summary(method: type) -> str:
    """The first paragraph of the method's file, or of the class if the file has none."""
    documented = sys.modules[method.__module__].__doc__ or method.__doc__ or ""
    return " ".join(documented.strip().partition("\n\n")[0].split())


def _hyperparameters(method: str) -> str:
    from kdhelpers.methods import METHODS
    from kdhelpers.report.labels import default_hyperparameters

    options = "\n".join(f"  {name} = {value}" for name, value in default_hyperparameters(method).items())
    equation = fill(
        (METHODS[method].__doc__ or "").strip().partition("\n")[0], WIDTH, initial_indent="  ", subsequent_indent="  "
    )
    teacher = "  needs a teacher" if METHODS[method].needs_teacher else "  uses no teacher"
    return f"{equation}\n{teacher}\n{options}".rstrip()


def _settings() -> list[Row]:
    from kdhelpers.training.run import Run

    return [Row(name, (name, str(field.default), field.description or "")) for name, field in Run.model_fields.items()]


def _optimisers() -> list[Row]:
    from kdhelpers.training.optim import LION_RULE, described

    rules = {"lion": LION_RULE}
    return [Row(name, (name, text), rules.get(name, "")) for name, text in described()]


def _runs() -> list[Row]:
    for fault in damaged():
        inform(f"warning: {fault}")
    return [
        Row(
            record["name"],
            (accuracy_text(record), record["name"]),
            "" if state_text(record) == "finished" else state_text(record),
            partial(_run, record),
            state(record),
        )
        for record in records()
    ]


def accuracy_text(record: dict) -> str:
    top1 = (record.get("metrics") or {}).get("test_top1_pct")
    return "-" if top1 is None else f"{top1:.2f}" + MARK * bool(record.get("notes"))


def _run(record: dict) -> str:
    """State, settings that differ from the defaults, time, and notes of a run."""
    from kdhelpers.training.run import distinctive

    facts = {
        "state": state_text(record),
        "teacher": (record.get("teacher") or {}).get("name"),
        **distinctive(record.get("run") or {}),
        "started": (record.get("environment") or {}).get("started"),
        "resumed": ", ".join(record.get("resumed") or []),
        "notes": "; ".join(record.get("notes") or []),
    }
    texts = {name: _named(value) if isinstance(value, dict) else str(value) for name, value in facts.items() if value}
    return table((f"  {name}", text) for name, text in texts.items())


SECTIONS: dict[str, Callable[[], list[Row]]] = {
    "notebooks": _notebooks,
    "profiles": _profiles,
    "data": _data,
    "models": _models,
    "methods": _methods,
    "settings": _settings,
    "optimisers": _optimisers,
    "runs": _runs,
}

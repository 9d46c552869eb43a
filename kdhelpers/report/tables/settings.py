"""What a training is about to do: the run's settings, and its networks and data."""

import contextlib

import pandas

from kdhelpers.display.text import magnitude_text
from kdhelpers.methods import METHODS
from kdhelpers.models import count_macs, count_parameters, rebuild_model
from kdhelpers.report.styling import folded_rows, table_of
from kdhelpers.weights.load import find_teacher, load_model

CORE = "role dataset model method hyperparameters teacher epochs batch_size lr seed".split()


def run_table(run):
    """The fields of a `Run`, or of anything with `model_dump()`: non-defaults in bold, then the most important ones.

    The other fields, which have their defaults, are in the folded table.
    """
    values = run.model_dump()
    chosen = _chosen(run, values)
    place = {name: (name not in chosen, name not in CORE) for name in values}
    order = sorted(values, key=place.get)
    shown = sum(place[name] < (True, True) for name in values)
    fields = getattr(type(run), "model_fields", {})
    meanings = [getattr(fields.get(name), "description", None) or "" for name in order]
    frame = pandas.DataFrame({"setting": order, "value": [_value_text(values[n]) for n in order], "meaning": meanings})
    bold = pandas.DataFrame("", index=frame.index, columns=frame.columns)
    bold.iloc[: len(chosen), :2] = "font-weight: bold"
    caption = f"{getattr(run, 'artifact_name', type(run).__name__)} · bold: differs from the default"
    return folded_rows(frame, caption, shown, "more settings, at their defaults", bold)


def _chosen(run, values: dict) -> set[str]:
    """The fields that differ from their defaults; options differ if leaving them out would give others."""
    fields = getattr(type(run), "model_fields", {})
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    chosen = {name for name, value in values.items() if name not in defaults or value != defaults[name]}
    options = {name for name in chosen if isinstance(values[name], dict) and name in fields}
    for name in options:  # a Run completes them with the defaults of its method, optimiser and schedule
        with contextlib.suppress(ValueError):  # ImageNet weights need an option that differs from its default: chosen
            completed = type(run)(**{other: values[other] for other in chosen - {name}}).model_dump()
            chosen -= {name} if completed[name] == values[name] else set()
    return chosen


def _value_text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "–"
    return "–" if value is None else str(value)


def networks(run, data):
    """The run's network and its teacher, if any: parameters, multiply-accumulates per image, test accuracy.

    Raises FileNotFoundError that names the notebook to run for a teacher that was not trained yet.
    """
    rows, description = [], {}
    if run.teacher:
        weights = find_teacher(run.teacher, run.dataset)
        description = weights.description
        architecture, top1_pct = description.get("model", run.teacher), description.get("test_top1_pct")
        rows.append(_network_row("teacher", architecture, load_model(weights), data, top1_pct))
    network = rebuild_model(run.model, data.num_classes, **{"image_size": data.image_size, **run.model_options})
    rows.append(_network_row(run.role, run.model, network, data, None))
    card = (
        f"{data.name}: {len(data.train):,} train, {len(data.val):,} held out, {len(data.test):,} test images of "
        f"{data.num_classes} classes, {data.image_size} px"
    )
    if data.unlabelled is not None:
        used = METHODS[run.method](**run.hyperparameters).uses_unlabelled
        tested = data.test_images_unlabelled if used else 0
        card += f", {len(data.unlabelled):,} images without labels"
        card += f" (transductive: {tested:,} of them test images)" * bool(tested)
    return table_of(rows, " · ".join([card, *description.get("notes", [])]))


def _network_row(role: str, name: str, network, data, top1_pct: float | None) -> dict[str, str]:
    return {
        "network": role,
        "architecture": name,
        "parameters": magnitude_text(count_parameters(network)),
        "MACs per image": magnitude_text(count_macs(network, data.image_size)),
        "test top-1 (%)": "to be trained" if top1_pct is None else f"{top1_pct:.2f}",
    }

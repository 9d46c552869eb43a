"""Trained networks from disk: the weight file of a name, its description, and `load_model`."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.messages import inform
from kdhelpers.methods import METHODS
from kdhelpers.models import COUNTS, MODELS, check_model, identify_architecture, is_external, is_network, rebuild_model
from kdhelpers.nearest import guess
from kdhelpers.python_paths import is_python_path, require_given, use_network
from kdhelpers.weights.head import with_head
from kdhelpers.weights.not_weights import not_weights
from kdhelpers.weights.third_party import load_state


@dataclass(frozen=True)
class Weights:
    """A weight file, the content of its sidecar `<stem>.json` ({} if there is none), and the file's sha256."""

    path: Path
    description: dict
    sha256: str


def read_weights(path: Path) -> Weights:
    """Raises FileNotFoundError; ValueError if the sidecar describes other content than the file holds."""
    sidecar, sha256 = path.with_suffix(".json"), artifacts.sha256(path)
    if not os.path.lexists(sidecar):
        return Weights(path, {}, sha256)
    description = artifacts.read_description(sidecar)
    if description["sha256"] != sha256:
        raise ValueError(
            f"{path}: its content is not what {sidecar.name} describes; restore the file, or delete that "
            "description and name the architecture yourself"
        )
    return Weights(path, description, sha256)


def find_weights(name: str, near: Iterable[str] = (), datasets: Iterable[str] | None = None) -> Weights:
    """The weights of an artifact's name or of a path. Raises as `read_weights`; FileNotFoundError names the nearest
    names, of stored weights and of `near`, and the command to run, if its data set is one of `datasets` (None: any);
    ValueError for a file of another kind."""
    stored, path = artifacts.weights_path(name.removesuffix(".pth")), Path(name)
    if path.suffix == ".pth" and path.is_file():
        return read_weights(path)
    if stored.is_file():
        return read_weights(stored)
    if path.is_file():
        raise ValueError(f"weights = {name}: {not_weights(path) or 'has another extension than .pth; rename it'}")
    raise FileNotFoundError(_missing(name, stored, near, datasets))


def _missing(name: str, stored: Path, near: Iterable[str], datasets: Iterable[str] | None) -> str:
    """Why there are no such weights, the names that are nearest, and the command that trains them."""
    close = guess(stored.stem, [*sorted(path.stem for path in stored.parent.glob("*.pth")), *near], 3)
    if record := artifacts.record_path(stored.stem).is_file() and artifacts.load_record(stored.stem):
        path = os.path.relpath(artifacts.record_path(stored.stem))
        made_elsewhere = "`python -m kdhelpers teachers` fetches or registers them"
        again = made_elsewhere if "origin" in record else f"`python -m kdhelpers train {path}` trains them again"
        return f"weights = {name}: only their record is stored here, not {stored}; {again}"
    remedy = _training(stored.stem, datasets) or "`python -m kdhelpers list runs` lists the stored names"
    return f"weights = {name}: not trained yet, {stored} does not exist; {close}{remedy}; or give a path of a .pth file"


def _training(stem: str, datasets: Iterable[str] | None) -> str:
    """The command that trains weights of a derived name, `student_<method>_<model>_<dataset>`; "" for another name."""
    role, _, rest = re.sub(r"(_seed\d+)?(-[0-9a-f]{8})?$", "", stem).partition("_")
    method, rest = ("", rest) if role == "teacher" else _split(rest, METHODS)
    model, dataset = _split(rest, MODELS)
    derived = model and dataset and (role == "teacher" or (role == "student" and method))
    if not derived or (datasets is not None and dataset not in datasets):
        return ""
    published = (role, dataset) == ("teacher", "cifar100")
    fetch = "; `python -m kdhelpers teachers` fetches published ones" * published
    parts = [f"dataset={dataset}", f"model={model}", f"method={method}" if method else "role=teacher"]
    parts += ["teacher=TEACHER"] * bool(method and METHODS[method].needs_teacher)
    return f"`python -m kdhelpers train {' '.join(parts)}` trains them{fetch}"


def _split(text: str, registry: Iterable[str]) -> tuple[str, str]:
    """(the longest name of the registry that the text begins with, the rest), or ("", text)."""
    name = max((name for name in registry if text.startswith(f"{name}_")), key=len, default="")
    return name, text[len(name) + 1 :] if name else text


def teacher_name(teacher: str, dataset: str) -> str:
    """The artifact of a Run's `teacher`: a name or path unchanged; for an architecture, the one trained on `dataset`.

    Other trainings of a name are stored as `<name>-<id>`. For an architecture they are a ValueError that lists all, so
    that no student uses an older teacher by accident; for a name, stderr lists them. Raises FileNotFoundError if none
    is stored for an architecture.
    """
    name = f"teacher_{artifacts.file_name(teacher)}_{dataset}" if is_network(teacher) else teacher
    first = artifacts.weights_path(name.removesuffix(".pth"))
    others = sorted(first.parent.glob(f"{first.stem}-{'[0-9a-f]' * 8}.pth")) if "/" not in name else []
    stored = [path for path in (first, *others) if path.is_file()]
    choices = ", ".join(map(_summary, stored))
    if not is_network(teacher):
        if len(stored) > 1 and first.is_file():
            inform(f"teacher = {teacher}: the first of {choices} is used")
        return teacher
    if len(stored) > 1:
        raise ValueError(f"teacher = {teacher}: there are {len(stored)}: {choices}; give the name of one of them")
    if not stored and is_external(teacher):
        command = f"`python -m kdhelpers train dataset={dataset} model={teacher} role=teacher`"
        raise FileNotFoundError(f"teacher = {teacher}: not trained yet, {first} does not exist; {command} trains it")
    return stored[0].stem if stored else find_weights(name).path.stem


def find_teacher(teacher: str, dataset: str) -> Weights:
    """The weights of a Run's `teacher` or `start_from`. Raises as `teacher_name` and `find_weights` do."""
    return find_weights(teacher_name(teacher, dataset), near=MODELS)


def describe_teacher(teacher: str, dataset: str) -> dict:
    """The sidecar of `find_teacher`: `name`, `model`, `test_top1_pct`, its `run`.

    Raises as `find_teacher` does, and ValueError for weights without a sidecar.
    """
    weights = find_teacher(teacher, dataset)
    if not weights.description:
        raise ValueError(
            f"teacher = {teacher}: {weights.path} has no description; `python -m kdhelpers teachers --file "
            f"{weights.path} --model ARCHITECTURE --dataset {dataset}` measures it and writes one"
        )
    return weights.description


def load_model(
    weights: str | Weights,
    model: str | None = None,
    num_classes: int | None = None,
    device: str = "cpu",
    head: bool = True,
    image_size: int | None = None,
    **options,
) -> nn.Module:
    """A trained network in eval mode, by artifact name (`student_lm_resnet8_digits`), by path, or of `find_weights`.

    Architecture, classes, image size and options come from the sidecar. Without one they are `model`, `num_classes`,
    `image_size` and `options`; without these they are identified from the tensors' names and shapes, and stderr reports
    them. `load_state` reads checkpoints made elsewhere. A student that predicts by a head (SimKD) is loaded with it;
    `head=False` loads the student alone. A sidecar that names a network by Python path imports nothing: give the path
    as `model`. Raises FileNotFoundError; ValueError for a damaged file, a file without a state_dict, weights of another
    network and a Python path that was not given.
    """
    if is_python_path(model):
        use_network(model)
    weights = find_weights(weights) if isinstance(weights, str) else weights
    path, description, state = weights.path, weights.description, load_state(weights.path)
    model, num_classes = model or description.get("model"), num_classes or description.get("num_classes")
    options = options or description.get("model_options", {})
    if not model:
        model, num_classes, options = _identify(state, path)
    elif not num_classes:
        raise ValueError(f"{path}: has no description; give num_classes with model = {model}")
    if is_python_path(model):
        require_given(model, str(path.with_suffix(".json")))
    image_size = image_size or description.get("image_size")
    with artifacts.reading(path.with_suffix(".json") if description else path, "correct it"):
        network = rebuild_model(model, num_classes, image_size=image_size, **options)
    _inform_of_other_source(path, model, options)
    load_weights(network, state, f"{path} (read as {model}, {num_classes} classes)")
    if head and description.get("head"):
        network = with_head(network, path, description)
    return network.to(device).eval()


def _inform_of_other_source(path: Path, model: str, options: dict) -> None:
    if (source := options.get("source")) and source != check_model(model, options=options)["source"]:
        inform(f"{path}: the file of {model} has changed since these weights were trained")


def _identify(state: dict[str, Tensor], path: Path) -> tuple[str, int, dict]:
    try:
        model, num_classes, options = identify_architecture(state)
    except ValueError as error:
        raise ValueError(f"{path}: has no description, and {error}; give model='resnet20', num_classes=100") from None
    values = "".join(f", {option} {value}" for option, value in options.items())
    text = f"its tensors fit {model}{values}, {num_classes} classes"
    inform(f"{path}: has no description; {text}")
    return model, num_classes, options


def load_weights(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """`load_state_dict`, with a ValueError that gives the first difference in one line."""
    expected = network.state_dict()  # with BatchNorm's counts, which older files lack
    pairs = [(key, tuple(state[key].shape), tuple(expected[key].shape)) for key in expected if key in state]
    shapes = [f"{key} is {shape}, expected {wanted}" for key, shape, wanted in pairs if shape != wanted]
    missing = [f"lacks {key}" for key in expected if key not in state and not key.endswith(COUNTS)]
    extra = [f"has an unknown {key}" for key in state if key not in expected]
    if differences := shapes + missing + extra:
        raise ValueError(
            f"{what}: weights of another architecture: {differences[0]} ({len(missing)} missing, {len(extra)} unknown, "
            f"{len(shapes)} of other shape); name the right model and options such as stem"
        )
    expected.update(state)  # in place: some networks need the version that their own mapping has
    network.load_state_dict(expected)


def start_from(network: nn.Module, weights: Weights) -> None:
    """Initialise the network with stored weights. Raises as `load_state` and `load_weights` do."""
    load_weights(network, load_state(weights.path), f"start_from = {weights.path}")


def _summary(path: Path) -> str:
    """E.g. "teacher_resnet8_digits (2 epochs, 71.2 %)"; the file is not read."""
    sidecar = path.with_suffix(".json")
    description = artifacts.read_description(sidecar) if sidecar.is_file() else {}
    epochs, top1 = (description.get("run") or {}).get("epochs", "?"), description.get("test_top1_pct")
    training = "made elsewhere" if "origin" in description else f"{epochs} epochs"
    return f"{path.stem} ({training}{'' if top1 is None else f', {top1:.1f} %'})"

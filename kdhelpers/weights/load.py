"""Trained networks back from disk: which weights a name means, what describes them, and `load_model`."""

import sys
from pathlib import Path

from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.models import COUNTS, MODELS, build_model, identify_architecture
from kdhelpers.weights.third_party import load_state


from functools import cached_property
from pathlib import PosixPath


class Weights(PosixPath):
    @property
    def path(self): return Path(self)
    @cached_property
    def description(self): return sidecar(Path(self)) or {}
    @cached_property
    def sha256(self): return artifacts.sha256(self)


def find_teacher(t, d): return find_weights(teacher_name(t, d))


def find_weights(name: str) -> "Weights":
    return name if isinstance(name, Weights) else Weights(_find(str(name)))


def _find(name: str) -> Path:
    """The path of weights given by name or by path. Raises FileNotFoundError that names the notebook to run."""
    stored, path = artifacts.weights_path(name.removesuffix(".pth")), Path(name)
    if path.suffix == ".pth" and path.is_file():
        return path
    if stored.is_file():
        return stored
    raise FileNotFoundError(
        f"{name} has not been trained yet: there is no {stored}; run notebook 01_teacher with that model and "
        "data set first (or `python -m kdhelpers suite`), or give the path of a .pth file; `python -m kdhelpers "
        "teachers` fetches published ones for cifar100"
    )


def teacher_name(teacher: str, dataset: str) -> str:
    """The artifact a Run's `teacher` means: a name or path as it is; for an architecture, the one trained on `dataset`.

    Raises FileNotFoundError if none was trained, ValueError that lists them if there are several: a student must not
    learn from an older teacher of that architecture without a word. Of a name there may be namesakes, `<name>-<id>`,
    from a later training with other settings: the name is taken at its word, and they are told of on stderr.
    """
    name = f"teacher_{teacher}_{dataset}" if teacher in MODELS else teacher
    first = artifacts.weights_path(name.removesuffix(".pth"))
    others = sorted(first.parent.glob(f"{first.stem}-{'[0-9a-f]' * 8}.pth")) if "/" not in name else []
    found = [path for path in (first, *others) if path.is_file()]
    choices = ", ".join(map(_described_text, found))
    if teacher not in MODELS:
        if len(found) > 1 and first.is_file():
            print(f"teacher = {teacher}: the first of {choices} is taken", file=sys.stderr)
        return teacher
    if len(found) > 1:
        raise ValueError(f"teacher = {teacher}: there are {len(found)}: {choices}; give the name of the one you mean")
    return found[0].stem if found else find_weights(name).stem


def describe_teacher(teacher: str, dataset: str) -> dict:
    """The sidecar of the weights that `teacher` means for `dataset`: `name`, `model`, `test_top1_pct`, its `run`.

    Raises FileNotFoundError as `find_weights` does, ValueError for weights without a sidecar.
    """
    path = find_weights(teacher_name(teacher, dataset))
    described = sidecar(path)
    if described is None:
        raise ValueError(
            f"teacher = {teacher}: {path} has no description beside it; `python -m kdhelpers teachers --file {path} "
            f"--model ARCHITECTURE --dataset {dataset}` measures it and writes one"
        )
    return described


def sidecar(path: Path) -> dict | None:
    """The JSON beside a weight file, or None; ValueError if it describes other content than the file holds."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    described = artifacts.load_json(beside)
    if not isinstance(described, dict) or described.get("sha256") != artifacts.sha256(path):
        raise ValueError(
            f"{path}: its content is not what {beside.name} describes; restore the file, or delete that "
            "description and name the architecture yourself"
        )
    return described


def load_model(
    name: str, model: str | None = None, num_classes: int | None = None, device: str = "cpu", **options
) -> nn.Module:
    """A trained network in eval mode, by artifact name (`student_lm_resnet8_digits`) or by path.

    Architecture, classes and options come from the file's sidecar; without one they are `model`, `num_classes` and
    `options`, or, where those are left out, what the tensors' names and shapes tell, which is said on stderr. A
    checkpoint made elsewhere, with the weights under `model` or `state_dict`, is read as `load_state` says. Raises
    FileNotFoundError, or ValueError if the file is damaged, holds no state_dict or fits another network.
    """
    path = find_weights(name)
    described, state = sidecar(path) or {}, load_state(path)
    model, num_classes = model or described.get("model"), num_classes or described.get("num_classes")
    options = options or described.get("model_options", {})
    if not model:
        model, num_classes, options = _identified(state, path)
    elif not num_classes:
        raise ValueError(f"{path}: no description beside it; say num_classes besides model = {model}")
    network = build_model(model, num_classes, **options)
    load_weights(network, state, f"{path} (read as {model}, {num_classes} classes)")
    return network.to(device).eval()


def _identified(state: dict[str, Tensor], path: Path) -> tuple[str, int, dict]:
    try:
        model, num_classes, options = identify_architecture(state)
    except ValueError as error:
        raise ValueError(
            f"{path}: no description beside it, and {error}; say load_model(..., model='resnet20', num_classes=100)"
        ) from None
    chosen = "".join(f", {option} {value}" for option, value in options.items())
    told = f"its tensors are those of {model}{chosen}, {num_classes} classes"
    print(f"{path}: no description beside it; {told}", file=sys.stderr)
    return model, num_classes, options


def check_state(state, what: str) -> None:
    """ValueError unless `state` is a state_dict of tensors."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{what}: not a state_dict of tensors")


def load_weights(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """`load_state_dict`, with the first difference in one line instead of all of them."""
    check_state(state, what)
    own = network.state_dict()
    missing = [k for k in own if k not in state and not k.endswith(COUNTS)]  # older files have no counts
    extra = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or shapes:
        first = (
            f"{shapes[0]} is {tuple(state[shapes[0]].shape)}, expected {tuple(own[shapes[0]].shape)}"
            if shapes
            else f"lacks {missing[0]}"
            if missing
            else f"has {extra[0]} besides"
        )
        raise ValueError(
            f"{what}: weights of another architecture: {first} ({len(missing)} missing, {len(extra)} unknown, "
            f"{len(shapes)} of other shape); name the right model and options such as stem"
        )
    network.load_state_dict(own | state)


def start_from(network: nn.Module, path) -> None:
    """Give the network the weights that `name` (as `teacher_name` reads it) means. Raises as `load_weights` does."""
    load_weights(network, load_state(path), f"start_from = {path}")


def _described_text(path: Path) -> str:
    known = artifacts.load_json(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
    epochs, top1 = known.get("run", {}).get("epochs", "?"), known.get("test_top1_pct")
    made = "made elsewhere" if "origin" in known else f"{epochs} epochs"
    return f"{path.stem} ({made}{'' if top1 is None else f', {top1:.1f} %'})"

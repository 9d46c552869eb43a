"""Networks of the user's own, by Python path: a class or function that returns an nn.Module."""

import hashlib
import importlib.util
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kdhelpers.nearest import known_names
from kdhelpers.python_paths import require_given

SIZES = ("image_size", "img_size")  # the argument that takes the side of the images
FILLED = ("num_classes", "pretrained", *SIZES)  # arguments that the package gives, if the signature has them


def check_own(name: str, pretrained: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, completed with `source`, a hash of the file with the code: an edited file makes another run.

    Imports the path, which the user must have given. Raises ValueError for a faulty path and for options that the
    signature does not take.
    """
    target = _target(name)
    parameters = inspect.signature(target).parameters
    taken = [option for option in parameters if option not in FILLED]
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options = {option: value for option, value in options.items() if option != "source"}
    if unknown := [option for option in options if option not in taken and not any_name]:
        raise ValueError(f"option of model {name} = {unknown[0]}: unknown; {known_names(unknown[0], taken)}")
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind in (0, 1, 3)]
    if missing := [option for option in required if option not in (*FILLED, *options)]:
        raise ValueError(f"model = {name}: {missing[0]} has no default; give model_options={{{missing[0]!r}: ...}}")
    if pretrained and "pretrained" not in parameters:
        raise ValueError(f"pretrained = True: {name} has no argument `pretrained`; leave it out")
    return {**options, "source": source_hash(target)}


def build_own(
    name: str, num_classes: int, pretrained: bool, image_size: int | None, options: Mapping[str, Any]
) -> nn.Module:
    """The network, with num_classes, image_size or img_size, and pretrained, if the signature has these arguments."""
    target = _target(name)
    given = {"num_classes": num_classes, "pretrained": pretrained, **dict.fromkeys(SIZES, image_size)}
    parameters = inspect.signature(target).parameters
    filled = {option: value for option, value in given.items() if option in parameters and value is not None}
    try:
        network = target(**{**filled, **{option: value for option, value in options.items() if option != "source"}})
    except (Exception, SystemExit) as error:  # the user's code may raise any error
        raise ValueError(f"model = {name}: cannot be built ({_text(error)}); mend the code or model_options") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"model = {name}: returned a {type(network).__name__}; name a class or function of an nn.Module"
        )
    return network


def source_hash(target: Callable) -> str:
    """12 hex digits of the sha256 of the file that defines the class or function."""
    return hashlib.sha256(Path(inspect.getsourcefile(inspect.unwrap(target))).read_bytes()).hexdigest()[:12]


def parsed(value: Any) -> Any:
    """A number, flag, list or mapping from its JSON text, as papermill and the command line pass them."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {"True": True, "False": False}.get(value, value)


def _target(name: str) -> Callable:
    require_given(name)
    place, _, attribute = name.rpartition(":")
    try:
        target = getattr(_of_file(Path(place)), attribute) if place.endswith(".py") else pkgutil.resolve_name(name)
    except (Exception, SystemExit) as error:
        remedy = "the module must be importable from the current folder; path/to/file.py:Name names a file"
        raise ValueError(f"model = {name}: cannot be imported ({_text(error)}); {remedy}") from error
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise ValueError(f"model = {name}: is a {type(target).__name__}; name a class or function of an nn.Module")
    if not getattr(sys.modules.get(target.__module__), "__file__", ""):
        raise ValueError(f"model = {name}: is not in a file; write the code into a .py file, such as my_models.py")
    return target


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _of_file(path: Path) -> Any:
    """The module of a file, imported once."""
    path = path.expanduser().resolve(strict=True)
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]

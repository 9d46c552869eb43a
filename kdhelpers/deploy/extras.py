"""The formats, and the optional libraries that each of them needs."""

from importlib.util import find_spec

from kdhelpers.nearest import check_known

INSTALL = "pip install -r requirements-export.txt"
FORMATS = {  # format -> (extension, libraries)
    "onnx": (".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torchscript": (".torchscript.pt", ()),
    "safetensors": (".safetensors", ("safetensors",)),
}


def lacking(form: str) -> list[str]:
    """The libraries of a format that are not installed."""
    return [library for library in FORMATS[form][1] if find_spec(library) is None]


def check_format(form: str, int8: bool = False) -> None:
    """ValueError for an unknown format, for int8 in another format than ONNX, and for a library that is missing."""
    check_known("format", form, FORMATS)
    if int8 and form != "onnx":
        raise ValueError(f"int8 = True: needs format onnx, not {form}; remove one of the two")
    if missing := lacking(form):
        needed = f"{', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed"
        raise ValueError(f"format = {form}: needs {needed}: {INSTALL}")

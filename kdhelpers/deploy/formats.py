"""A network as the bytes of a file: ONNX, TorchScript, safetensors."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

OPSET = 18  # of ONNX: onnxruntime 1.14 and later run it


def to_onnx(module: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> bytes:
    """`images` -> `logits` with a dynamic batch and OPSET; the metadata are read by `get_modelmeta()`.

    Raises ValueError for a network that torch cannot export.
    """
    names = {"input_names": ["images"], "output_names": ["logits"], "opset_version": OPSET}
    shapes = ({0: torch.export.Dim("N")},)
    with _quiet(), _faults("onnx", "torchscript"):
        program = torch.onnx.export(module, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    return with_metadata(program.model_proto, metadata)


def with_metadata(model, metadata: Mapping[str, str]) -> bytes:
    """An ONNX model with these entries alone, as bytes."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def to_torchscript(module: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> bytes:
    """A trace of the network, with the metadata as its extra file `metadata.json`."""
    buffer = io.BytesIO()
    with _quiet(), _faults("torchscript", "onnx"), torch.no_grad():
        traced = torch.jit.trace(module, images, check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={"metadata.json": json.dumps(metadata)})
    return buffer.getvalue()


def to_safetensors(network: nn.Module, metadata: Mapping[str, str]) -> bytes:
    """The state_dict, with the metadata in the file's header."""
    from safetensors.torch import save

    tensors = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    return save(tensors, {"format": "pt", **metadata})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on their own versions, and without the graph of a network that they refuse."""
    names = "torch.onnx", "onnxscript", "onnx_ir", "torch.fx.experimental.symbolic_shapes"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        streams = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with warnings.catch_warnings(action="ignore"), streams[0], streams[1]:
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _faults(form: str, other: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the network's own code may raise any error
        raise ValueError(f"format = {form}: torch cannot export this network ({reason(error)}); try {other}") from error


def reason(error: BaseException) -> str:
    """The first cause in a line, with the place in the user's code: torch's own messages end with pages of advice."""
    while error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if any(line.startswith("Traceback") for line in lines):  # of TorchScript: the error is its last line
        return lines[-1][:300]
    return " ".join([lines[0], *(line for line in lines[1:] if line.startswith("Caused by"))])[:300]

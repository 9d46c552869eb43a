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
    """Without the exporters' remarks on their own versions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _faults(form: str, other: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the network's own code may raise any error
        text = " ".join(str(error).split())[:300]
        raise ValueError(f"format = {form}: torch cannot export this network ({text}); try {other}") from error

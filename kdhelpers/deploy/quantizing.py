"""Static int8 by onnxruntime: weights per output channel, activations by the ranges of calibration images."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kdhelpers.deploy.formats import with_metadata

BATCH = 32


class Images:
    """The calibration images as onnxruntime reads them, a batch at a time."""

    def __init__(self, images: np.ndarray):
        self.batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def to_int8(model: bytes, images: np.ndarray, metadata: Mapping[str, str]) -> bytes:
    """An ONNX model in int8, with pairs of QuantizeLinear and DequantizeLinear (QDQ), and these metadata.

    Activations are uint8 and weights use 7 of their 8 bits: CPUs without VNNI would saturate at more, and x86 is slow
    with signed activations. So a file computes the same on all CPUs.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "reduce_range": True}
    with TemporaryDirectory() as folder, _quiet():
        source, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "int8"))
        source.write_bytes(model)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, target, Images(images), QuantFormat.QDQ, per_channel=True, **types)
        return with_metadata(onnx.load(target), metadata)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Networks by name, seen through named feature maps. Knows nothing of the rest of the package."""

from .architecture import Architecture
from .counting import count_macs, count_parameters
from .folding import fold_batchnorm
from .recognition import COUNTS, recognise
from .registry import MODELS, build_model, check_model, require_small
from .taps import Observed, Outputs, Taps

__all__ = [
    "COUNTS",
    "MODELS",
    "Architecture",
    "Observed",
    "Outputs",
    "Taps",
    "build_model",
    "check_model",
    "count_macs",
    "count_parameters",
    "fold_batchnorm",
    "recognise",
    "require_small",
]

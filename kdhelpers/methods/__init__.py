"""The distillation methods: one file each, its pure loss first, then the small `Method` that uses it.

A new method is one file, one line in `METHODS`, and its test.
"""

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.independent import IndependentStudent
from kdhelpers.methods.logit_matching import LogitMatching, kd_loss

METHODS: dict[str, type[Method]] = {
    "si": IndependentStudent,
    "lm": LogitMatching,
}

__all__ = ["METHODS", "Context", "Method", "kd_loss"]

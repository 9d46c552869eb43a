"""The distillation methods: one file each, its pure loss first, then the small `Method` that uses it.

A new method is one file, its import and its line in `METHODS` here, and one test.
"""

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.cocord import CoCoRD, cocord_contrast_loss, cocord_prediction_loss
from kdhelpers.methods.conkd import ConKD
from kdhelpers.methods.crd import ContrastiveDistillation, crd_loss
from kdhelpers.methods.dkd import DecoupledKD, dkd_loss
from kdhelpers.methods.hints import Hints, hint_loss
from kdhelpers.methods.independent import IndependentStudent
from kdhelpers.methods.info_nce import InBatchContrast, info_nce_loss
from kdhelpers.methods.label_smoothing import LabelSmoothing, label_smoothing_loss
from kdhelpers.methods.logit_matching import LogitMatching, kd_loss
from kdhelpers.methods.logit_standardization import (
    StandardizedDecoupledKD,
    StandardizedLogitMatching,
    standardize,
    standardized_kd_loss,
)
from kdhelpers.methods.semi_supervised import UnlabelledDistillation
from kdhelpers.methods.simkd import SimKD, simkd_projector
from kdhelpers.methods.supcon import SupervisedContrast, supcon_loss
from kdhelpers.methods.supcrd import SupervisedContrastiveDistillation, supcrd_loss
from kdhelpers.registry import Registry

METHODS = Registry(
    "METHODS",
    lambda entry: isinstance(entry, type) and issubclass(entry, Method),
    "register a subclass of Method itself, without parentheses",
    {
        "si": IndependentStudent,
        "lm": LogitMatching,
        "ls": LabelSmoothing,
        "dkd": DecoupledKD,
        "hints": Hints,
        "crd": ContrastiveDistillation,
        "crd_inbatch": InBatchContrast,
        "lm_standardized": StandardizedLogitMatching,
        "dkd_standardized": StandardizedDecoupledKD,
        "supcon": SupervisedContrast,
        "supcrd": SupervisedContrastiveDistillation,
        "conkd": ConKD,
        "cocord": CoCoRD,
        "simkd": SimKD,
        "lm_unlabelled": UnlabelledDistillation,
    },
)

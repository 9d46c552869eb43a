"""The distillation methods: one file each, its pure loss first, then the small `Method` that uses it.

A new method is one file, its import and its line in `METHODS` here, and one test.
"""

from kdhelpers.methods.at import AttentionTransfer, at_loss
from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.catkd import ClassAttentionTransfer, cat_loss, class_activation_maps
from kdhelpers.methods.cocord import CoCoRD, cocord_contrast_loss, cocord_prediction_loss
from kdhelpers.methods.conkd import ConKD
from kdhelpers.methods.crd import ContrastiveDistillation, crd_loss
from kdhelpers.methods.ctkd import CurriculumTemperature, ctkd_strength, learned_temperature
from kdhelpers.methods.dist import RelationMatching, dist_loss
from kdhelpers.methods.dkd import DecoupledKD, dkd_loss
from kdhelpers.methods.hints import Hints, hint_loss
from kdhelpers.methods.ickd import InterChannelCorrelation, ickd_loss
from kdhelpers.methods.independent import IndependentStudent
from kdhelpers.methods.info_nce import InBatchContrast, info_nce_loss
from kdhelpers.methods.label_smoothing import LabelSmoothing, label_smoothing_loss
from kdhelpers.methods.lm_mixed import MixedLogitMatching, cutmix, mixed_cross_entropy, mixup
from kdhelpers.methods.logit_matching import LogitMatching, kd_loss
from kdhelpers.methods.logit_standardization import (
    StandardizedDecoupledKD,
    StandardizedLogitMatching,
    standardize,
    standardized_kd_loss,
)
from kdhelpers.methods.luminet import LumiNet, luminet_loss
from kdhelpers.methods.mlkd import MultiLevelMatching, mlkd_batch_loss, mlkd_class_loss
from kdhelpers.methods.nkd import NormalizedKD, nkd_loss
from kdhelpers.methods.normkd import NormalizedLogitMatching, normkd_loss
from kdhelpers.methods.nst import NeuronSelectivityTransfer, nst_loss
from kdhelpers.methods.pkt import ProbabilisticTransfer, pkt_loss
from kdhelpers.methods.reviewkd import AttentionFusion, KnowledgeReview, hcl_loss
from kdhelpers.methods.rkd import RelationalKD, rkd_loss
from kdhelpers.methods.rld import RefinedLogits, rld_loss
from kdhelpers.methods.sdd import ScaleDecoupledKD, cell_logits, sdd_dkd_loss, sdd_kd_loss
from kdhelpers.methods.semi_supervised import UnlabelledDistillation
from kdhelpers.methods.simkd import SimKD, simkd_projector
from kdhelpers.methods.sp import SimilarityPreserving, sp_loss
from kdhelpers.methods.supcon import SupervisedContrast, supcon_loss
from kdhelpers.methods.supcrd import SupervisedContrastiveDistillation, supcrd_loss
from kdhelpers.methods.ttm import TransformedTeacherMatching, WeightedTransformedTeacherMatching, ttm_loss, wttm_loss
from kdhelpers.methods.vid import VariationalInformation, vid_loss
from kdhelpers.methods.wsld import WeightedSoftLabels, wsld_loss
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
        "lm_mixed": MixedLogitMatching,
        "rkd": RelationalKD,
        "pkt": ProbabilisticTransfer,
        "sp": SimilarityPreserving,
        "at": AttentionTransfer,
        "nst": NeuronSelectivityTransfer,
        "vid": VariationalInformation,
        "ickd": InterChannelCorrelation,
        "reviewkd": KnowledgeReview,
        "catkd": ClassAttentionTransfer,
        "sdd": ScaleDecoupledKD,
        "dist": RelationMatching,
        "ttm": TransformedTeacherMatching,
        "wttm": WeightedTransformedTeacherMatching,
        "rld": RefinedLogits,
        "nkd": NormalizedKD,
        "luminet": LumiNet,
        "normkd": NormalizedLogitMatching,
        "wsld": WeightedSoftLabels,
        "ctkd": CurriculumTemperature,
        "mlkd": MultiLevelMatching,
    },
)

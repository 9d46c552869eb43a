"""Networks by name, seen through named feature maps. Knows nothing of the rest of the package."""

from kdhelpers.models.architecture import Architecture
from kdhelpers.models.complexity import count_macs, count_parameters
from kdhelpers.models.feature_extractor import FeatureExtractor, Outputs, ReturnNodes
from kdhelpers.models.folding import fold_batchnorm
from kdhelpers.models.identification import COUNTS, identify_architecture
from kdhelpers.models.registry import MODELS, build_model, check_model, require_small


def default_options(name):
    return {o: next(iter(a)) for o, a in MODELS[name].options.items()}

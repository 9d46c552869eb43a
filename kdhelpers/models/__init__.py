"""Networks by name, with named feature maps. Imports the lowest floors of the package alone."""

from kdhelpers.models.architecture import Architecture
from kdhelpers.models.complexity import count_macs, count_parameters
from kdhelpers.models.external import NODE_OPTIONS, build_facts, is_external
from kdhelpers.models.feature_extractor import FeatureExtractor, Outputs, ReturnNodes
from kdhelpers.models.folding import fold_batchnorm
from kdhelpers.models.headed import HeadedNetwork
from kdhelpers.models.identification import COUNTS, identify_architecture
from kdhelpers.models.registry import (
    MODELS,
    build_model,
    check_model,
    check_network,
    default_options,
    is_network,
    option_names,
    rebuild_model,
    require_small,
)

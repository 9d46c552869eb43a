"""Networks by name, with named feature maps. Imports nothing else of the package except `registry`."""

from kdhelpers.models.architecture import Architecture
from kdhelpers.models.complexity import count_macs, count_parameters
from kdhelpers.models.feature_extractor import FeatureExtractor, Outputs, ReturnNodes
from kdhelpers.models.folding import fold_batchnorm
from kdhelpers.models.headed import HeadedNetwork
from kdhelpers.models.identification import COUNTS, identify_architecture
from kdhelpers.models.registry import MODELS, build_model, check_model, default_options, require_small

"""What trained networks learnt: functions of `Predictions` (or of models) that return figures and data frames."""

from kdhelpers.analysis.agreement import (
    agreement,
    divergence,
    linear_cka,
    logit_correlation,
    standardized_divergence,
)
from kdhelpers.analysis.agreement_figures import kl_bars, logit_correlation_maps, reliability
from kdhelpers.analysis.capacity import capacity, capacity_bars
from kdhelpers.analysis.gradcam import attention, attention_agreement, attention_bars
from kdhelpers.analysis.gradcam_panel import attention_panel
from kdhelpers.analysis.intervals import mean_interval
from kdhelpers.analysis.predictions import per_class, soft_targets
from kdhelpers.analysis.robustness import colour_drop, colour_drop_bars, jittered, jittered_samples

__all__ = [
    "agreement",
    "attention",
    "attention_agreement",
    "attention_bars",
    "attention_panel",
    "capacity",
    "capacity_bars",
    "colour_drop",
    "colour_drop_bars",
    "divergence",
    "jittered",
    "jittered_samples",
    "kl_bars",
    "linear_cka",
    "logit_correlation",
    "logit_correlation_maps",
    "mean_interval",
    "per_class",
    "reliability",
    "soft_targets",
    "standardized_divergence",
]

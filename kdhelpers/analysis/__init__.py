"""What trained networks learnt: functions of `Predictions` (or of models) that return figures and data frames."""

from kdhelpers.analysis.predictions import per_class, soft_targets

__all__ = ["per_class", "soft_targets"]

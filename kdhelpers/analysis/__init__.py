"""Analyses of trained networks: functions of `Predictions` (or of models) that return figures and data frames."""

from kdhelpers.analysis.agreement import (
    agreement,
    divergence,
    kl_divergence,
    linear_cka,
    logit_correlation,
    standardized_divergence,
)
from kdhelpers.analysis.agreement_figures import kl_bars, logit_correlation_maps, reliability
from kdhelpers.analysis.capacity import capacity, capacity_bars
from kdhelpers.analysis.change_figures import change_bars, changed_images, class_gain_bars
from kdhelpers.analysis.changes import change_frame, class_gain_frame, kinds_of
from kdhelpers.analysis.confusion import class_frame, confusion_frame, confusion_map, confusion_matrix
from kdhelpers.analysis.embedding import (
    alignment,
    class_alignment,
    embedding_quality,
    hypersphere,
    nearest_neighbour_pct,
    tsne,
    uniformity,
)
from kdhelpers.analysis.embedding_figures import choose_classes, hypersphere_picture, tsne_maps
from kdhelpers.analysis.explorer_page import explorer_page
from kdhelpers.analysis.gradcam import gradcam_agreement, gradcam_bars, gradcam_maps, map_correlation
from kdhelpers.analysis.gradcam_panel import gradcam_panel
from kdhelpers.analysis.hypersphere_page import hypersphere_page
from kdhelpers.analysis.intervals import mean_interval, paired_difference
from kdhelpers.analysis.logit_targets import class_table, minimal_predictions, pulls
from kdhelpers.analysis.map_panels import attention_panel, cell_panel, class_activation_panel, review_levels
from kdhelpers.analysis.predictions import label_figure, label_frame, per_class, soft_targets
from kdhelpers.analysis.relations import relations, similarity_maps
from kdhelpers.analysis.robustness import (
    STRENGTHS,
    colour_robustness,
    colour_robustness_bars,
    drop_difference,
    jittered,
    jittered_samples,
)

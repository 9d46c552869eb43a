"""kdhelpers: knowledge distillation in a few names. See README.md for the tour.

from kdhelpers import Run, fit, load_data, infer, evaluate

teacher = fit(Run(dataset="digits", model="resnet20", role="teacher"))
student = fit(Run(dataset="digits", model="resnet8", method="lm", teacher=teacher.name))
print(evaluate(infer(student.model, load_data("digits"))))
"""

from importlib import import_module

__version__ = "0.1.0"

# Imported when first used: `import kdhelpers` alone must not cost torch, pydantic and the rest.
_HOME = {
    "Run": "training.run",
    "load_data": "data",
    "DATASETS": "data",
    "build_model": "models",
    "MODELS": "models",
    "network_nodes": "models.external.table",
    "use_network": "python_paths",
    "FeatureExtractor": "models",
    "METHODS": "methods",
    "load_model": "weights.load",
    "fit": "training.fit",
    "fit_sweep": "training.fit",
    "infer": "evaluation.predictions",
    "probe_predictions": "evaluation.linear_probe",
    "evaluate": "evaluation.metrics",
    "compare": "evaluation.metrics",
    "results": "report.results",
    "stored_students": "report.cohort",
    "ensure_students": "report.cohort",
    "summarize": "report.results",
    "histories": "report.results",
    "sweep_runs": "training.sweep",
    "method_runs": "training.sweep",
    "optimizer_runs": "training.sweep",
    "starting_point": "training.optim",
    "build_optimizer": "training.optim",
    "method_label": "report.labels",
    "settings": "training.named",
    "run_of": "training.named",
    "without_teacher": "training.controls",
    "ensure_teacher": "training.controls",
    "control_runs": "training.controls",
    "with_untrained_teacher": "training.controls",
    "partners": "training.placebo",
    "mean_prediction": "training.placebo",
    "require_small": "models",
    "describe_teacher": "weights.load",
    "kd_loss": "methods.logit_matching",
    "label_smoothing_loss": "methods.label_smoothing",
    "mixup": "methods.lm_mixed",
    "cutmix": "methods.lm_mixed",
    "mixed_cross_entropy": "methods.lm_mixed",
    "dkd_loss": "methods.dkd",
    "decoupled_divergences": "methods.dkd",
    "hint_loss": "methods.hints",
    "build_regressor": "methods.hints",
    "crd_loss": "methods.crd",
    "info_nce_loss": "methods.info_nce",
    "supcon_loss": "methods.supcon",
    "supcrd_loss": "methods.supcrd",
    "standardize": "methods.logit_standardization",
    "standardized_kd_loss": "methods.logit_standardization",
    "dist_loss": "methods.dist",
    "ttm_loss": "methods.ttm",
    "wttm_loss": "methods.ttm",
    "rld_loss": "methods.rld",
    "nkd_loss": "methods.nkd",
    "luminet_loss": "methods.luminet",
    "normkd_loss": "methods.normkd",
    "wsld_loss": "methods.wsld",
    "learned_temperature": "methods.ctkd",
    "ctkd_strength": "methods.ctkd",
    "mlkd_batch_loss": "methods.mlkd",
    "mlkd_class_loss": "methods.mlkd",
    "refined_divergences": "methods.rld",
    "perception": "methods.luminet",
    "cocord_contrast_loss": "methods.cocord",
    "cocord_prediction_loss": "methods.cocord",
    "hcl_loss": "methods.reviewkd",
    "AttentionFusion": "methods.reviewkd",
    "class_activation_maps": "methods.catkd",
    "cat_loss": "methods.catkd",
    "cell_logits": "methods.sdd",
    "sdd_kd_loss": "methods.sdd",
    "sdd_dkd_loss": "methods.sdd",
    "rkd_loss": "methods.rkd",
    "distances_and_angles": "methods.rkd",
    "pkt_loss": "methods.pkt",
    "neighbour_probabilities": "methods.pkt",
    "sp_loss": "methods.sp",
    "image_similarities": "methods.sp",
    "at_loss": "methods.at",
    "nst_loss": "methods.nst",
    "vid_loss": "methods.vid",
    "ickd_loss": "methods.ickd",
    # What a method, a network or a data set of your own is made of: docs/extending.md.
    "Method": "methods",
    "Weight": "methods.parts.ranges",
    "NonNegative": "methods.parts.ranges",
    "Fraction": "methods.parts.ranges",
    "Temperature": "methods.parts.ranges",
    "Count": "methods.parts.ranges",
    "Range": "methods.parts.ranges",
    "cross_entropy": "methods.parts.tensors",
    "Architecture": "models",
    "Source": "data",
    "dataset_from_arrays": "data",
}
_MODULES = {
    "analysis": "analysis",
    "deploy": "deploy",
    "gains": "report.gains",
    "diagrams": "display.diagrams",
    "method_table": "report.method_table",
    "noise": "report.noise",
    "notebook": "display.notebook",
    "pairs": "report.pairs",
    "placebo": "report.placebo",
    "plots": "display.plots",
    "sketches": "display.sketches",
    "published": "report.published",
    "submission": "evaluation.submission",
    "tables": "report.tables",
    "trainings": "report.trainings",
}
__all__ = [*_HOME]  # without the modules: `from kdhelpers import *` must not cost pandas and matplotlib


def __getattr__(name: str):
    if name not in _HOME | _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(_HOME | _MODULES)}")
    module = import_module(f"{__name__}.{_MODULES.get(name) or _HOME[name]}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals() | _HOME | _MODULES)

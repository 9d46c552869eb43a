"""kdhelpers: knowledge distillation in a few names. See README.md for the tour.

from kdhelpers import Run, fit, load_data, infer, evaluate

teacher = fit(Run(dataset="digits", model="resnet20", role="teacher"))
student = fit(Run(dataset="digits", model="resnet8", method="lm", teacher=teacher.name))
print(evaluate(infer(student.model, load_data("digits"))))
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

# Imported when first used: `import kdhelpers` alone must not cost torch, pydantic and the rest.
_HOME = {
    "Run": "training.run",
    "load_data": "data",
    "DATASETS": "data",
    "build_model": "models",
    "MODELS": "models",
    "METHODS": "methods",
    "load_model": "weights.load",
    "fit": "training.fit",
    "fit_sweep": "training.fit",
    "infer": "evaluation.predictions",
    "evaluate": "evaluation.metrics",
    "compare": "evaluation.metrics",
    "results": "report.results",
    "stored_students": "report.cohort",
    "summarize": "report.results",
    "histories": "report.results",
    "sweep_runs": "training.sweep",
    "optimizer_runs": "training.sweep",
    "starting_point": "training.optim",
    "build_optimizer": "training.optim",
    "method_label": "report.labels",
    "settings": "training.named",
    "run_of": "training.named",
    "without_teacher": "training.controls",
    "ensure_teacher": "training.controls",
    "require_small": "models",
    "describe_teacher": "weights.load",
    "kd_loss": "methods.logit_matching",
    "label_smoothing_loss": "methods.label_smoothing",
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
    "cocord_contrast_loss": "methods.cocord",
    "cocord_prediction_loss": "methods.cocord",
}
_MODULES = {
    "analysis": "analysis",
    "diagrams": "display.diagrams",
    "notebook": "display.notebook",
    "pairs": "report.pairs",
    "plots": "display.plots",
    "sketches": "display.sketches",
    "published": "report.published",
    "submission": "evaluation.submission",
    "tables": "report.tables",
}
__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        path = f"{__name__}.{_MODULES[name]}"
        value = sys.modules.get(path) or _LazyModule(path)
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    globals()[name] = value
    return value


class _LazyModule(ModuleType):
    """Imports the module of its name when an attribute is first read: `from kdhelpers import *` must not cost pandas.

    It is not in `sys.modules`: `inspect` reads all modules there, in the middle of torch's import too.
    """

    def __getattr__(self, name: str):
        return getattr(import_module(self.__name__), name)

    def __setattr__(self, name: str, value) -> None:
        setattr(import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        return dir(import_module(self.__name__))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

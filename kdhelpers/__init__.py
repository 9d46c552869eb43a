"""kdhelpers: knowledge distillation in a few names. See README.md for the tour.

from kdhelpers import Run, fit, load_data, infer, evaluate

teacher = fit(Run(dataset="digits", model="resnet20", role="teacher"))
student = fit(Run(dataset="digits", model="resnet8", method="lm", teacher=teacher.name))
print(evaluate(infer(student.model, load_data("digits"))))
"""

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec

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
    "require_small": "models",
    "describe_teacher": "weights.load",
}
_MODULES = {
    "analysis": "analysis",
    "notebook": "display.notebook",
    "pairs": "report.pairs",
    "plots": "display.plots",
    "published": "report.published",
    "submission": "evaluation.submission",
    "tables": "report.tables",
}
__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        value = _lazy_module(f"{__name__}.{_MODULES[name]}")
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    globals()[name] = value
    return value


def _lazy_module(name: str):
    """The module, executed when its first attribute is read: `from kdhelpers import *` must not cost pandas."""
    if name not in sys.modules:
        spec = find_spec(name)
        spec.loader = LazyLoader(spec.loader)
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

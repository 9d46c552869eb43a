"""Accuracy, size and latency of networks to deploy: in float and in int8."""

from collections.abc import Mapping

from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.deploy.exporting import export
from kdhelpers.deploy.extras import INSTALL, lacking
from kdhelpers.deploy.network import load_source
from kdhelpers.deploy.timing import latency
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.evaluation.predictions import infer
from kdhelpers.messages import inform
from kdhelpers.report.cohort import Cohort
from kdhelpers.report.results import has_no_teacher

FLOAT, INT8, TORCH = "float", "int8", "PyTorch"


def candidates(cohort: Cohort, seed: int, taught: int = 1) -> dict[str, str]:
    """Label -> name: the teacher, the student alone, and the `taught` best students of methods with a teacher.

    The best have the highest accuracy on held-out images. A cohort without a student alone has the others.
    """
    records = {label: artifacts.load_record(name) or {} for label, name in cohort.students[seed].items()}
    alone = [label for label, record in records.items() if has_no_teacher(record.get("run") or {})]
    others = [label for label in records if label not in alone]
    others.sort(key=lambda label: (records[label].get("metrics") or {}).get("val_top1_pct") or 0.0, reverse=True)
    plain = [label for label in alone if records[label]["run"]["method"] == "si"]
    return {"teacher": cohort.teacher} | {label: cohort.students[seed][label] for label in [*plain, *others[:taught]]}


def measure(networks: Mapping[str, str], data: Data, repeats: int = 30):
    """A DataFrame with a row per network, precision, batch and number of threads; networks: label -> name of weights.

    Each network is exported to ONNX in float and in int8, into `pth_models/exports`, and run by onnxruntime. Without
    the libraries of the export, PyTorch's networks alone are measured, and a line names the remedy. Columns: those of
    `latency`, and label, name, precision, runtime, top1_pct, test_images, parameters, megabytes.
    """
    import pandas

    missing = lacking("onnx")
    if missing:
        inform(f"int8 and ONNX are left out: {', '.join(missing)} not installed: {INSTALL}")
    facts, runs = {}, {}
    for label, name in networks.items():
        for precision in [TORCH] if missing else [FLOAT, INT8]:
            key = f"{label}, {precision}"
            facts[key], runs[key] = (_of_torch if missing else _of_onnx)(label, name, precision, data)
    times = latency(runs, data.image_size, repeats=repeats)
    return pandas.DataFrame(list(facts.values())).merge(times, on="network").assign(dataset=data.name)


def _of_torch(label: str, name: str, precision: str, data: Data) -> tuple[dict, object]:
    source = load_source(name)
    top1 = top_k_pct(infer(source.network, source.normalised(data)))
    size = source.weights.path.stat().st_size
    return _facts(label, name, precision, "PyTorch", top1, len(data.test), size), source.deployable()


def _of_onnx(label: str, name: str, precision: str, data: Data) -> tuple[dict, object]:
    count = len(data.test)
    done = export(name, int8=precision == INT8, images=count, data=data)
    top1 = done.facts["int8_cost" if precision == INT8 else "check"]["top1_pct"]
    return _facts(label, name, precision, "onnxruntime", top1, count, done.facts["bytes"]), done.path


def _facts(label: str, name: str, precision: str, runtime: str, top1: float, images: int, size: int) -> dict:
    parameters = (artifacts.load_record(name) or {}).get("model", {}).get("parameters")
    texts = {"network": f"{label}, {precision}", "label": label, "name": name, "precision": precision}
    numbers = {"top1_pct": top1, "test_images": images, "parameters": parameters, "megabytes": size / 1e6}
    return texts | {"runtime": runtime} | numbers

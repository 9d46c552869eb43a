"""The device computes what the CPU computes: batches, steps, losses, the folded teacher, its cache, the graphs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.losses import losses
from benchmarks.gpu.session import Session, attempt, attempts, skipped
from benchmarks.gpu.timing import cudnn
from benchmarks.gpu.workloads import Students, noise, run_of, settled
from benchmarks.measure import row
from kdhelpers.data import Batches, BatchSpec, parse_recipe
from kdhelpers.device import full_fp32
from kdhelpers.training.teacher import Teacher

CPU = torch.device("cpu")
RECIPES = {  # recipe -> largest difference of normalised pixels
    "none": 1e-6,
    "crop flip": 1e-6,
    "crop flip cutout": 1e-6,
    "crop flip rotation jitter": 1e-4,
    "resized_crop flip": 1e-4,
    "crop flip randaugment": 1e-4,
}
ROUNDED = 1e-3  # share of RandAugment's pixels that may be on the other side of a rounding to whole levels
TERMS, LOGITS, FOLDED, CACHED, GRAPHED = 1e-5, 1e-4, 1e-4, 1e-5, 1e-6


def correct(session: Session) -> Iterator[dict]:
    """Without TF32, then the same steps with TF32."""
    with full_fp32():
        for recipe, limit in RECIPES.items():
            case = f"batches, {recipe}"
            yield attempt(case, partial(_batches, session, case, recipe, limit))
        yield from attempts("6 steps", _steps(session, "", judged=True))
        yield from losses(session)
        yield attempt("folded teacher", partial(_folded, session))
        yield attempt("cached teacher", partial(_cached, session))
        yield _graphs(session)
    if session.device.type == "cuda":
        with _tf32():
            yield from attempts("6 steps, TF32", _steps(session, ", TF32", judged=False))


def _batches(session: Session, case: str, recipe: str, limit: float) -> dict:
    """The largest difference of a normalised pixel from the CPU's; for RandAugment the share of pixels that differ."""
    data = noise(session, steps=2, batch=32)
    spec = BatchSpec(parse_recipe(recipe), 32, views=2)
    apart = [
        (mine.cpu() - theirs).abs()
        for one, two in zip(Batches(data, spec, session.device).epoch(1), Batches(data, spec).epoch(1), strict=True)
        for mine, theirs in zip(one.views, two.views, strict=True)
    ]
    far = torch.cat([values.flatten() for values in apart])
    if "randaugment" in recipe:
        share = (far > limit).double().mean().item()
        return row(case, share, "of pixels", None, f"<= {ROUNDED:g}", share <= ROUNDED)
    return row(case, far.max().item(), "max error", None, f"<= {limit:g}", far.max().item() <= limit)


def _steps(session: Session, kind: str, judged: bool, steps: int = 6) -> Iterator[dict]:
    """Logit matching, resnet20 -> resnet8 in fp32 from the same weights."""
    run = run_of(session, "resnet8", teacher="resnet20", method="lm", precision="fp32")
    network, data = settled(session, "resnet20").cpu(), noise(session, steps)
    found = [_train(run, data, network, device) for device in (session.device, CPU)]
    (terms, logits), (cpu_terms, cpu_logits) = found
    apart = max(abs(terms[name] - value) / abs(value) for name, value in cpu_terms.items())
    met = apart <= TERMS if judged else None
    case = f"{steps} steps{kind}"
    yield row(f"{case}, loss terms", apart, "of the CPU's", None, f"<= {TERMS:g}" if judged else "", met)
    far = (logits - cpu_logits).abs().max().item()
    met = far <= LOGITS if judged else None
    yield row(f"{case}, logits", far, "max error", None, f"<= {LOGITS:g}" if judged else "", met)


def _train(run, data, network: torch.nn.Module, device: torch.device, graphs: bool = False) -> tuple[dict, Tensor]:
    """Mean loss terms of an epoch, and the student's logits after it."""
    students = Students([run], data, device, Teacher(copy.deepcopy(network), device), graphs=graphs)
    (training,) = students.trainings
    students.epoch()
    training.end_epoch(1.0)
    side = data.image_size
    images = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = training.network.eval()(images.to(device)).cpu()
    students.close()
    terms = {name: value for name, value in training.history[-1].items() if name in ("loss", "ce", "kd")}
    return terms, logits


def _folded(session: Session) -> dict:
    network, side = settled(session, "resnet20"), session.scale.side
    images = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0)).to(session.device)
    with torch.no_grad():
        logits = network(images)
        far = (Teacher(network, session.device)(images).logits - logits).abs().max() / logits.abs().max()
    return row("folded teacher", far.item(), "of the unfolded", None, f"<= {FOLDED:g}", far.item() <= FOLDED)


def _cached(session: Session) -> dict:
    """Student logits after an epoch with the live teacher and with its cache, full and read back."""
    run = run_of(session, "resnet8", teacher="resnet20", method="lm", precision="fp32")
    network, data = settled(session, "resnet20"), noise(session, steps=2)
    found = []
    for cached in (False, True, True):
        students = Students([run], data, session.device, Teacher(network, session.device), cached)
        with cudnn(deterministic=True):
            students.epoch()
        found.append([p.detach().clone() for p in students.trainings[0].network.parameters()])
        students.close()
    far = max((a - b).abs().max().item() for other in found[1:] for a, b in zip(found[0], other, strict=True))
    limit = 0 if session.device.type == "cpu" else CACHED  # its batches may be of another size
    return row("cached teacher, weights after 2 steps", far, "max error", None, f"<= {limit:g}", far <= limit)


def _graphs(session: Session, steps: int = 20) -> dict:
    case = f"graph against eager, {steps} steps, logits"
    if session.device.type != "cuda":
        return skipped(case, "CUDA graphs need an NVIDIA GPU")
    return attempt(case, partial(_graph_row, session, case, steps))


def _graph_row(session: Session, case: str, steps: int) -> dict:
    run = run_of(session, "resnet8", teacher="resnet20", method="lm", precision="fp32")
    network, data = settled(session, "resnet20"), noise(session, steps)
    with cudnn(deterministic=True):
        (_, graphed), (_, eager) = (_train(run, data, network, session.device, graphs) for graphs in (True, False))
    far = ((graphed - eager).abs().max() / eager.abs().max()).item()
    return row(case, far, "of the eager", None, f"<= {GRAPHED:g}", far <= GRAPHED)


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

"""Each pure loss and its gradient on the device against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.session import Session, attempt
from benchmarks.measure import row
from kdhelpers import methods

BATCH, CLASSES, DIM, BANK, NEGATIVES = 16, 20, 32, 400, 64
LIMITS = {"fp32": (torch.float32, 1e-5), "bf16": (torch.bfloat16, 1e-2)}


def problem() -> dict[str, Tensor]:
    """float64 inputs, which bf16 represents exactly: the error is that of the computation."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16().double()

    def unit(*shape: int) -> Tensor:
        return F.normalize(draw(*shape), dim=-1).bfloat16().double()

    return {
        "logits": draw(BATCH, CLASSES),
        "teacher_logits": draw(BATCH, CLASSES),
        "embedding": unit(BATCH, DIM),
        "teacher_embedding": unit(BATCH, DIM),
        "views": unit(BATCH, 2, DIM),
        "teacher_views": unit(BATCH, 2, DIM),
        "teacher_view_logits": draw(BATCH, 2, CLASSES),
        "bank": unit(BANK, DIM),
        "map": draw(BATCH, 4, 8, 8),
        "teacher_map": draw(BATCH, 4, 8, 8),
        "labels": torch.randint(CLASSES, (BATCH,), generator=generator),
        "index": torch.randperm(BANK, generator=generator)[:BATCH],
        "negatives": torch.randint(BANK, (BATCH, NEGATIVES), generator=generator),
    }


# loss -> (function, name of the input whose gradient is taken, names of its other inputs)
LOSSES: dict[str, tuple[Callable, str, tuple[str, ...]]] = {
    "ls": (methods.label_smoothing_loss, "logits", ("labels",)),
    "kd": (methods.kd_loss, "logits", ("teacher_logits",)),
    "dkd": (methods.dkd_loss, "logits", ("teacher_logits", "labels")),
    "standardized kd": (methods.standardized_kd_loss, "logits", ("teacher_logits",)),
    "hint": (methods.hint_loss, "map", ("teacher_map",)),
    "crd": (methods.crd_loss, "embedding", ("teacher_embedding", "bank", "bank", "index", "negatives")),
    "info_nce": (methods.info_nce_loss, "embedding", ("teacher_embedding",)),
    "supcon": (methods.supcon_loss, "views", ("labels",)),
    "supcrd": (methods.supcrd_loss, "views", ("teacher_views", "teacher_view_logits", "labels")),
    "cocord contrast": (methods.cocord_contrast_loss, "embedding", ("teacher_embedding", "bank")),
    "cocord prediction": (methods.cocord_prediction_loss, "views", ("teacher_views",)),
}


def losses(session: Session) -> Iterator[dict]:
    """The larger relative error of loss and gradient, per loss and precision of its inputs."""
    values = problem()
    for name in LOSSES:
        exact = _loss_and_gradient(name, values, torch.device("cpu"), torch.float64)
        for precision, (dtype, limit) in LIMITS.items():
            case = f"loss and gradient of {name}, {precision}"
            yield attempt(case, partial(_row, case, exact, name, values, session.device, dtype, limit))


def _row(case: str, exact, name: str, values: dict, device: torch.device, dtype: torch.dtype, limit: float) -> dict:
    found = _loss_and_gradient(name, values, device, dtype)
    error = max(((f - e).norm() / e.norm()).item() for f, e in zip(found, exact, strict=True))
    return row(case, error, "of float64's", None, f"<= {limit:g}", error <= limit)


def _loss_and_gradient(name: str, values: dict[str, Tensor], device: torch.device, dtype: torch.dtype):
    function, student, others = LOSSES[name]

    def moved(key: str) -> Tensor:
        value = values[key].to(device)
        return value.to(dtype) if value.is_floating_point() else value

    leaf = moved(student).detach().requires_grad_()
    loss = function(leaf, *map(moved, others))
    loss.backward()
    return loss.detach().cpu().double(), leaf.grad.cpu().double()

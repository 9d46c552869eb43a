"""Supervised contrast (SupCon): views of images of one class are pulled together, all others pushed away.

For anchor i of the n = B V views, with P(i) the other views with its label and A(i) all views but i,

    out:  L = mean_i -1/|P(i)| sum_{p in P(i)} log(e^{<z_i, z_p>/T} / sum_{a in A(i)} e^{<z_i, z_a>/T})
    in:   L = mean_i -log(1/|P(i)| sum_{p in P(i)} e^{<z_i, z_p>/T} / sum_{a in A(i)} e^{<z_i, z_a>/T})

Anchors without a positive are left out of the mean. Khosla et al.: Supervised Contrastive Learning, NeurIPS 2020,
equations 2 and 3, without their factor temperature / base temperature.
"""

from typing import Literal

import torch
from torch import Tensor

from kdhelpers.methods.base import Context, Method, check_range, full_precision
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead


def supcon_loss(
    embeddings: Tensor, labels: Tensor | None, temperature: float = 0.07, form: Literal["out", "in"] = "out"
) -> Tensor:
    """The loss above, a scalar: mean over the anchors that have a positive; 0 with a gradient where none has.

    embeddings [B, V, d] with unit rows, any float dtype (computed in float32, or float64 for float64 input); labels
    int64 [B], shared by an image's views, or None: every image its own class (SimCLR). All-equal embeddings give
    log(B V - 1). Raises ValueError for other shapes and an unknown form.
    """
    check_form(form)
    check_views("embeddings", embeddings, labels)
    batch, views, _ = embeddings.shape
    labels = torch.arange(batch, device=embeddings.device) if labels is None else labels
    owner = labels.repeat_interleave(views)
    with torch.autocast(embeddings.device.type, enabled=False):
        flat = full_precision(embeddings).flatten(0, 1)
        scores = flat @ flat.T / temperature
    others = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    return contrast_of_sets(scores, (owner[:, None] == owner) & others, others, form)


def contrast_of_sets(scores: Tensor, positives: Tensor, candidates: Tensor, form: str) -> Tensor:
    """Mean over the anchors with a positive of -log(positives / candidates), by either form; a scalar.

    scores [n, m]; positives and candidates bool [n, m], the sets P(i) and A(i).
    """
    count = positives.sum(1)
    log_all = masked_logsumexp(scores, candidates)
    if form == "in":
        each = log_all + count.clamp(min=1).log() - masked_logsumexp(scores, positives)
    else:
        each = log_all - scores.masked_fill(~positives, 0).sum(1) / count.clamp(min=1)
    has = count > 0
    return each.where(has, 0).sum() / has.sum().clamp(min=1) + 0 * scores.sum()


def masked_logsumexp(scores: Tensor, chosen: Tensor) -> Tensor:
    """log sum exp over the chosen entries of each row [n, m]; the least finite number for a row without any, so that
    no infinity spoils a gradient that is multiplied by 0."""
    return scores.masked_fill(~chosen, torch.finfo(scores.dtype).min).logsumexp(1)


def check_form(form: str) -> None:
    if form not in ("in", "out"):
        raise ValueError(f"form = {form}: must be in or out")


def check_views(name: str, embeddings: Tensor, labels: Tensor | None) -> None:
    if embeddings.ndim != 3 or (labels is not None and labels.shape != embeddings.shape[:1]):
        found = f"{tuple(embeddings.shape)}, labels {None if labels is None else tuple(labels.shape)}"
        raise ValueError(f"{name}: {found}; must be [B, V, d], the views of an image side by side, and labels [B]")


class SupervisedContrast(Method):
    """SupCon on two independent views; the classifier is a linear probe, trained when the encoder is done.

    The projection head (linear, ReLU, linear, then unit length) is trained with the student and is not in its weights.
    """

    title = "SupCon"
    needs_teacher = False
    views = 2
    trains_classifier = False

    def __init__(self, *, temperature: float = 0.07, form: Literal["out", "in"] = "out", dim: int = 128):
        super().__init__()
        check_range("temperature", temperature, 0.001, 100)
        check_range("dim", dim, 1, 65536)
        self.temperature, self.form, self.dim = temperature, form, dim

    def build(self, context: Context) -> None:
        self.head = ProjectionHead(context.student_outputs.embedding.shape[1], self.dim)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        embeddings = torch.stack([self.head(student(view).embedding) for view in batch.views], 1)
        return {"supcon": supcon_loss(gather(embeddings), gather(batch.labels), self.temperature, self.form)}

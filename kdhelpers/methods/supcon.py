"""Supervised contrast (SupCon): pulls views of one class together and pushes all others away.

For anchor i of the n = B V views, with P(i) the other views with its label and A(i) all views except i,

    out:  L = mean_i -1/|P(i)| sum_{p in P(i)} log(e^{<z_i, z_p>/T} / sum_{a in A(i)} e^{<z_i, z_a>/T})
    in:   L = mean_i -log(1/|P(i)| sum_{p in P(i)} e^{<z_i, z_p>/T} / sum_{a in A(i)} e^{<z_i, z_a>/T})

The mean leaves out anchors without a positive. Khosla et al.: Supervised Contrastive Learning, NeurIPS 2020,
equations 2 and 3, without their factor temperature / base temperature.
"""

from typing import Literal

import torch
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead
from kdhelpers.methods.parts.ranges import ContrastTemperature, Width
from kdhelpers.methods.parts.tensors import check_shapes, full_precision

Form = Literal["out", "in"]


def supcon_loss(embeddings: Tensor, labels: Tensor | None, temperature: float = 0.07, form: Form = "out") -> Tensor:
    """The loss above, a scalar: mean over the anchors with a positive; 0 with a gradient if no anchor has one.

    embeddings [B, V, d] with unit rows, any float dtype (computed in float32, or float64 for float64 input); labels
    int64 [B], shared by an image's views, or None: every image is its own class (SimCLR). All-equal embeddings give
    log(B V - 1). Raises ValueError for other shapes and an unknown form.
    """
    check_form(form)
    check_shapes("embeddings [B, V, d], labels [B]; stack the V views of each image", embeddings, labels)
    batch, views, _ = embeddings.shape
    labels = torch.arange(batch, device=embeddings.device) if labels is None else labels
    labels = labels.repeat_interleave(views)
    with torch.autocast(embeddings.device.type, enabled=False):
        flat = full_precision(embeddings).flatten(0, 1)
        scores = flat @ flat.T / temperature
    candidates = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    positives = (labels[:, None] == labels) & candidates
    count = positives.sum(1)
    log_all = masked_logsumexp(scores, candidates)
    if form == "in":
        losses = log_all + count.clamp(min=1).log() - masked_logsumexp(scores, positives)
    else:
        losses = log_all - scores.masked_fill(~positives, 0).sum(1) / count.clamp(min=1)
    return losses.where(count > 0, 0).sum() / (count > 0).sum().clamp(min=1) + 0 * scores.sum()


def masked_logsumexp(scores: Tensor, mask: Tensor) -> Tensor:
    """log sum exp of the masked entries of each row [n, m]. An empty row gives the least finite number: an infinity
    times 0 would make the gradient NaN."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).logsumexp(1)


def check_form(form: str) -> None:
    if form not in ("in", "out"):
        raise ValueError(f"form = {form}: must be in or out")


class SupervisedContrast(Method):
    """SupCon on two independent views. The classifier is a linear probe, fitted after the encoder's training.

    The projection head (linear, ReLU, linear, then unit length) is trained with the student and not saved in its
    weights. `form` "out" is the paper's better one; "in" is its ablation.
    """

    title = "SupCon"
    needs_teacher = False
    views = 2
    trains_classifier = False

    temperature: ContrastTemperature = 0.07
    form: Form = "out"
    dim: Width = 128

    def build(self, context: Context) -> None:
        self.head = ProjectionHead(context.student_outputs.embedding.shape[1], self.dim)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        embeddings = torch.stack([self.head(student(view).embedding) for view in batch.views], 1)
        return {"supcon": supcon_loss(gather(embeddings), gather(batch.labels), self.temperature, self.form)}

"""Independent student (SI): cross-entropy on the labels and no teacher; the baseline of every comparison.

L = -(1/B) sum_b log softmax(z_s)_{y_b}
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method, full_precision


class IndependentStudent(Method):
    """The student (or a teacher) trained on labels alone."""

    title = "CE (no teacher)"
    needs_teacher = False

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        logits = student(batch.views[0]).logits
        return {"ce": F.cross_entropy(full_precision(logits), batch.labels)}

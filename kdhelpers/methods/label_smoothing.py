"""Label smoothing (LS): cross-entropy with labels mixed with the uniform distribution; it needs no teacher.

q = (1 - e) onehot(y) + e / C over all C classes,   L = -(1/B) sum_b sum_c q_c log softmax(z_s)_c

Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.ranges import Range, check_range
from kdhelpers.methods.parts.tensors import full_precision


def label_smoothing_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy with (1 - smoothing) onehot + smoothing / C, summed over classes, mean over the batch; a scalar.

    logits: [B, C], any float dtype (computed in float32, or float64 for float64 input); labels: int64 [B]. As in torch,
    the label's own class shares in the uniform part: the label keeps 1 - smoothing + smoothing / C. smoothing 0 is
    cross-entropy bit for bit. Raises ValueError for smoothing outside [0, 1].
    """
    check_range("smoothing", smoothing, 0, 1)
    return F.cross_entropy(full_precision(logits), labels, label_smoothing=smoothing)


class LabelSmoothing(Method):
    """Trains the student on smoothed labels alone."""

    title = "label smoothing"
    needs_teacher = False

    smoothing: Annotated[float, Range(0, 0.99)] = 0.1  # at 1 the labels are gone

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        return {"ce": label_smoothing_loss(student(batch.views[0]).logits, batch.labels, self.smoothing)}

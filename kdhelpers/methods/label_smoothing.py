"""Label smoothing (LS): cross-entropy on labels that keep a little doubt; no teacher.

q = (1 - e) onehot(y) + e / C over all C classes,   L = -(1/B) sum_b sum_c q_c log softmax(z_s)_c

Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method, check_range, full_precision


def label_smoothing_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy with (1 - smoothing) onehot + smoothing / C, summed over classes, mean over the batch; a scalar.

    logits: [B, C], any float dtype (computed in float32, or float64 for float64 input); labels: int64 [B]. The doubt is
    spread over all classes, the label's own included, as torch does it: the label keeps 1 - smoothing + smoothing / C.
    smoothing 0 is cross-entropy bit for bit. Raises ValueError for smoothing outside [0, 1].
    """
    check_range("smoothing", smoothing, 0, 1)
    return F.cross_entropy(full_precision(logits), labels, label_smoothing=smoothing)


class LabelSmoothing(Method):
    """The student trained on smoothed labels alone."""

    title = "label smoothing"
    needs_teacher = False

    def __init__(self, *, smoothing: float = 0.1):
        super().__init__()
        check_range("smoothing", smoothing, 0, 0.99)  # at 1 the labels are gone
        self.smoothing = smoothing

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        return {"ce": label_smoothing_loss(student(batch.views[0]).logits, batch.labels, self.smoothing)}

"""Cross-entropy on the labels without a teacher (the independent student, SI): the baseline of every comparison.

L = -(1/B) sum_b log softmax(z_s)_{y_b}
"""

from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.tensors import cross_entropy


class IndependentStudent(Method):
    """Trains a student, or a teacher, on labels alone."""

    title = "CE (no teacher)"
    needs_teacher = False

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        return {"ce": cross_entropy(student(batch.views[0]).logits, batch.labels)}

"""What every distillation method is: a module that turns one batch into named, already weighted loss terms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """What a method may look at once, when it builds its own parts.

    student_outputs:  its Outputs(logits [B, C], embedding [B, d], maps {name: [B, c, h, w]}) on two images, for shapes
    teacher_outputs:  the teacher's, or None where there is no teacher
    copy_student:     makes a slow student: a frozen copy of the student, a module `view -> Outputs`
    labels:           int64 [N], the labels of the training split in `batch.index` order
    num_classes:      C
    student_parameters: the student's own, in the order of its copy's: what a slow student follows
    """

    student_outputs: Any
    teacher_outputs: Any
    copy_student: Callable[[], nn.Module]
    labels: Tensor
    num_classes: int
    student_parameters: Sequence[nn.Parameter] = ()


class Method(nn.Module):
    """A distillation method. Subclasses take hyperparameters by keyword, with defaults, and check their ranges.

    `forward(student, teacher, batch, epoch)` returns `{"ce": ..., "kd": ...}`: scalar terms, already weighted. The loop
    sums them for the gradient and logs each. `student` and `teacher` are callables `view -> Outputs(logits, embedding,
    maps)`; the teacher's outputs carry no gradient. `batch` has `views` (a tuple of `self.views` image tensors
    [B, 3, H, W], one per independent augmentation), `labels` [B] and `index` [B] (place in the training split).
    `epoch` counts from 1.

    The method is a module beside the student: its parameters are trained with the student, its buffers are saved with
    the checkpoint, and neither is ever in the student's weight file. How the methods of this suite fit:

    - logit matching, label smoothing, DKD, standardised KD: only `forward`; DKD's warm-up is a function of `epoch`.
    - several views (SupCon, SupCRD, ConKD, CoCoRD): `views = 2` or `3`; call `student(view)` once per view.
    - projectors and regressors (hints, CRD, SupCRD): made in `build` from the shapes in `Context`; they are parameters.
    - memory banks and queues (CRD, CoCoRD): `register_buffer` in `build`, read and updated in `forward`, in place and
      under `no_grad`; negatives are drawn from torch's global generator, which the loop seeds from (seed, epoch).
    - slow students (CoCoRD): `context.copy_student()`, kept as a submodule and moved towards the student's parameters
      (`ema_update`) at the start of `forward`, that is before the optimiser's step. Like every submodule it is in train
      mode while training: its BatchNorm statistics follow what it sees, unless `forward` puts it in eval.
    - two stages (hints): while `epoch <= self.stage_epochs`, `forward` returns only the first stage's term, computed
      with `student(view, stop_at="<map>")`, which ends the forward at that map: upper layers then get no gradient, so
      the optimiser leaves them (and their momentum and weight decay) alone, and their BatchNorm statistics stay too.
    - a trained projection head of the teacher (SupCRD's `co_trained`): a parameter of the method, like any projector.
    - a gentle view for the teacher, by crop and flip alone: `weak_view = "shared_crop"` (as the first view) or "own_crop";
      it is `batch.weak_view`, and that very first view where the run's augmentation is gentle itself.
    - unlabelled images: `uses_unlabelled = True`; `batch.unlabelled` has their views, gentle view and index, and no
      labels. Labelled and unlabelled images may go through the student together, the labelled ones first.
    """

    needs_teacher = True
    reads: tuple[str, ...] = ("logits",)  # of the teacher's outputs; what was stored of them is logits and embeddings
    views = 1
    weak_view = ""  # which gentle view a batch has besides: "", "shared_crop", "own_crop"
    uses_unlabelled = False
    trains_classifier = True  # else a linear probe is fitted to the embeddings when the training is done
    stage_epochs = 0  # length of a first stage that does not train the whole student; less than the run's epochs

    def build(self, context: Context) -> None:
        """Make projectors, banks, slow copies. Called once, before the optimiser is made."""

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must return its loss terms from forward()")


def full_precision(x: Tensor) -> Tensor:
    """float32 for half types, float32 and float64 as they are: what losses that exponentiate compute in."""
    return x.float() if x.element_size() < 4 else x


def check_weights(**weights: float) -> None:
    """Raise ValueError for a negative weight, and where all of them are 0: there would be nothing to train."""
    for name, weight in weights.items():
        check_range(name, weight, 0)
    if not any(weights.values()):
        raise ValueError(f"{', '.join(weights)}: all are 0, which trains nothing; raise one")


def check_range(name: str, value: float, low: float, high: float = 1e6) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: must lie in [{low}, {high}]")

"""Agreement of a student with its teacher: divergence, calibration, similarity of features.

Every measure takes two `Predictions` of the same images and computes in float64.
"""

import pandas
import torch
from torch import Tensor

from kdhelpers.analysis.intervals import mean_interval
from kdhelpers.evaluation.metrics import calibration_error_pct, compare, top_k_pct
from kdhelpers.evaluation.predictions import Predictions, require_same_images


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p_t || p_s) of each image in nats [N] from logits [N, C], with p = softmax(z / T); no T^2."""
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: must be above 0, such as 4")
    log_teacher, log_student = ((logits / temperature).log_softmax(1) for logits in (teacher_logits, student_logits))
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


def divergence(teacher: Predictions, student: Predictions, temperature: float = 1.0) -> Tensor:
    """`kl_divergence` of the same images, float64 [N]; summed over classes, no T^2.

    Computed in log space, so it is finite for saturated logits. Raises ValueError for different images, and for a
    temperature that is not above 0.
    """
    require_same_images(teacher, student)
    return kl_divergence(teacher.logits.double(), student.logits.double(), temperature)


def standardized_divergence(teacher: Predictions, student: Predictions, temperature: float = 1.0) -> Tensor:
    """`divergence` of the standardised logits (z - mean_c) / (std_c + 1e-7), float64 [N] (Sun et al., CVPR 2024).

    Mean and unbiased std are taken over an image's classes, so a positive scale or shift of the logits has no effect.
    Constant logits count as uniform.
    """
    require_same_images(teacher, student)
    return kl_divergence(_standardized(teacher.logits), _standardized(student.logits), temperature)


def _standardized(logits: Tensor) -> Tensor:
    centred = logits.double() - logits.double().mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / max(1, logits.shape[1] - 1)  # 0, not NaN, for one class
    return centred / (variance.sqrt() + 1e-7)


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of features X [N, d1] and Y [N, d2] of the same images, in 0..1.

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F), columns centred (Kornblith et al., ICML 2019, eq. 5). 1 for features that
    are equal up to rotation and scale, NaN for constant features. Raises ValueError for unequal numbers of images.
    """
    if len(first) != len(second):
        raise ValueError(f"second: {len(second)} images for {len(first)} in first; infer both on the same split")
    first, second = (_centred(features) for features in (first, second))
    pairs = ((second, first), (first, first), (second, second))
    cross, norm_first, norm_second = (torch.linalg.matrix_norm(a.T @ b) for a, b in pairs)
    return (cross.square() / (norm_first * norm_second)).item()


def logit_correlation(predictions: Predictions) -> Tensor:
    """Pearson correlation over images between the logits of two classes, float64 [C, C]; 0 for a constant logit."""
    centred = _centred(predictions.logits)
    length = torch.linalg.vector_norm(centred, dim=0)
    unit = centred / length.where(length > 0, 1)
    return (unit.T @ unit).clamp(-1, 1)


def _centred(columns: Tensor) -> Tensor:
    return columns.double() - columns.double().mean(0)


def mean_off_diagonal(square: Tensor) -> float:
    """Mean over the pairs of different classes of a matrix [C, C]; NaN for a single class."""
    return square[~torch.eye(len(square), dtype=torch.bool)].mean().item()


def agreement(teacher: Predictions, students: dict[str, Predictions], temperature: float = 4.0):
    """A DataFrame with a row per student, in rising order of the KL divergence from the teacher at T = 1.

    Columns: student, rank; kl_nats (T = 1) with its 95 % bootstrap interval over images kl_low_nats, kl_high_nats;
    kl_at_temperature_nats (at `temperature`); kl_standardized_nats (T = 1); agreement_pct (same predicted class); the
    student's top1_pct and ece_pct; cka of the embeddings; logit_correlation_difference (mean |student - teacher| over
    pairs of different classes). Raises ValueError for predictions of different images.
    """
    measures = {name: _measures(teacher, student, temperature) for name, student in students.items()}
    ranking = sorted(measures, key=lambda name: measures[name]["kl_nats"])
    return pandas.DataFrame([{"student": name, "rank": rank, **measures[name]} for rank, name in enumerate(ranking, 1)])


def _measures(teacher: Predictions, student: Predictions, temperature: float) -> dict[str, float]:
    mean, low, high = mean_interval(divergence(teacher, student))
    correlation_difference = (logit_correlation(student) - logit_correlation(teacher)).abs()
    return {
        "kl_nats": mean,
        "kl_low_nats": low,
        "kl_high_nats": high,
        "kl_at_temperature_nats": divergence(teacher, student, temperature).mean().item(),
        "kl_standardized_nats": standardized_divergence(teacher, student).mean().item(),
        "agreement_pct": compare(teacher, student)["agreement_pct"],
        "top1_pct": top_k_pct(student),
        "ece_pct": calibration_error_pct(student),
        "cka": linear_cka(teacher.embeddings, student.embeddings),
        "logit_correlation_difference": mean_off_diagonal(correlation_difference),
    }

"""Logit matching on mixed images, a control: what mixing images adds to KD, and KD to mixing images.

mixup   x' = lam x + (1 - lam) x_k
cutmix  x' = x outside a box and x_k inside it; lam = 1 - (area of the box) / (area of the image)
y' counts as y by lam and as y_k by 1 - lam, k is the image's partner in the batch, lam ~ Beta(a, a) for each image

L = ce_weight mean_b [lam CE(y, x') + (1 - lam) CE(y_k, x')] + kd_weight T^2 KL(softmax(z_t / T) || softmax(z_s / T))

Both networks get x', so the teacher runs live. Zhang et al.: mixup: Beyond Empirical Risk Minimization, ICLR 2018,
section 2. Yun et al.: CutMix, ICCV 2019, equations 1 and 2: lam of the box before it is cut at the border is drawn, lam
of what remains counts. Both draw one lam for a batch; here each image has its own.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.ranges import Range, Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, full_precision

PARTNERS = "images [B, c, h, w], partners [B]"


def mixup(images: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """lam images + (1 - lam) images[partners], of the images' shape and dtype.

    images: [B, c, h, w], any float dtype; partners: int64 [B], the images' places in the batch; lam: float [B], from 0
    to 1. Raises ValueError on shapes that differ.
    """
    check_shapes(f"{PARTNERS}, lam [B]; draw one partner and one lam an image", images, partners, lam)
    weight = lam.to(images.dtype)[:, None, None, None]
    return weight * images + (1 - weight) * images[partners]


def cutmix(images: Tensor, partners: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The images with their partners' pixels inside the boxes, and lam, the share of an image that is its own.

    images: [B, c, h, w], any float dtype; partners: int64 [B]; boxes: integers [B, 4], top, left, bottom, right,
    0 <= top <= bottom <= h: rows from top to bottom - 1, columns from left to right - 1. lam: float32 [B], 1 - area of
    the box / (h w). Raises ValueError on shapes that differ.
    """
    check_shapes(f"{PARTNERS}, boxes [B, 4]; draw one partner and one box an image", images, partners, boxes)
    height, width = images.shape[2:]
    top, left, bottom, right = boxes.unbind(1)
    rows = _inside(height, top, bottom)[:, None, :, None]
    columns = _inside(width, left, right)[:, None, None, :]
    area = ((bottom - top) * (right - left)).float() / (height * width)
    return torch.where(rows & columns, images[partners], images), 1 - area


def _inside(size: int, start: Tensor, end: Tensor) -> Tensor:
    """bool [B, size]: start <= position < end."""
    position = torch.arange(size, device=start.device)
    return (position >= start[:, None]) & (position < end[:, None])


def mixed_cross_entropy(logits: Tensor, labels: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """lam CE(labels) + (1 - lam) CE(labels[partners]) in nats, mean over the batch; a scalar.

    logits: [B, C], any float dtype (computed in float32, or float64 for float64 input); labels, partners: int64 [B];
    lam: float [B]. Raises ValueError on shapes that differ.
    """
    layout = "logits [B, C], labels [B], partners [B], lam [B]; draw one partner and one lam an image"
    check_shapes(layout, logits, labels, partners, lam)
    logits = full_precision(logits)
    own, other = (F.cross_entropy(logits, each, reduction="none") for each in (labels, labels[partners]))
    return (lam * own + (1 - lam) * other).mean()


def draw_lam(count: int, alpha: float, device: torch.device | str = "cpu") -> Tensor:
    """float32 [count] ~ Beta(alpha, alpha), from two uniform numbers each: no number is drawn again, on no device.

    torch.distributions.Beta checks its arguments on the host, which waits for the device, and its gamma sampler does
    not exist on Apple's GPU. With U, V uniform and w = U^(1/alpha), c = cos(2 pi V), a Student t of 2 alpha degrees of
    freedom has t^2 / (2 alpha) = (1 - w) c^2 / w (Bailey 1994), and 1/2 + t / (2 sqrt(2 alpha + t^2)) is the Beta
    (Devroye: Random Variate Generation in One Line of Code, 1996).
    """
    uniform, angle = torch.rand(2, count, device=device)
    log_w = uniform.log() / alpha  # -inf, of a uniform 0, gives w = 0
    cosine, rest = (2 * math.pi * angle).cos(), -torch.expm1(log_w)  # rest is 1 - w, exact for w near 1
    sine = rest.sqrt() * cosine / (log_w.exp() + rest * cosine.square()).clamp(min=1e-38).sqrt()
    return (0.5 + 0.5 * sine).clamp(0, 1)


def draw_boxes(lam: Tensor, height: int, width: int) -> Tensor:
    """int64 [B, 4] for `cutmix`: each side is sqrt(1 - lam) of the image's, rounded down to an even number of pixels.

    The centre is any pixel with equal chance; what lies outside the image is cut off. lam: float [B].
    """
    side = (1 - lam).sqrt()
    edges = []
    for size in (height, width):
        half = (side * size).long() // 2
        centre = (torch.rand_like(lam) * size).long().clamp(max=size - 1)
        edges.append(((centre - half).clamp(min=0), (centre + half).clamp(max=size)))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1)


class MixedLogitMatching(Method):
    """ce_weight CE + kd_weight KD on mixed images; partners and lam are drawn in each step.

    Under DDP each process mixes its own images. A mixed image has two labels, so training accuracy is missing.
    """

    title = "KD on mixed images"
    mixes_images = True

    mix: Literal["mixup", "cutmix"] = "mixup"
    mix_alpha: Annotated[float, Range(0.01, 100)] = 1.0  # 1: lam is uniform; near 0: an image is hardly mixed
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        images, partners, lam = self.mixed(batch.views[0])
        logits = student(images).logits
        terms = {"ce": self.ce_weight * mixed_cross_entropy(logits, batch.labels, partners, lam)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(logits, teacher(images).logits, self.temperature)
        return terms

    def mixed(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(mixed images, partners, lam) of a view."""
        partners = torch.rand(len(view), device=view.device).argsort()
        lam = draw_lam(len(view), self.mix_alpha, view.device)
        if self.mix == "mixup":
            return mixup(view, partners, lam), partners, lam
        images, lam = cutmix(view, partners, draw_boxes(lam, *view.shape[2:]))
        return images, partners, lam

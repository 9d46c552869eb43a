"""Crop and flip, rotation, and resized crop: parameters per sample, a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Apple's index_select first copies the whole view of overlapping spans (pytorch#187109): 512 GiB for CIFAR.
SPANS_ON = ("cpu", "cuda")


class Windows:
    """Images laid out so that crop + flip is one contiguous copy per sample.

    They are stored [mirror, N, H + 2p, W + 2p, 3] with p pixels of zero padding, and mirrored copies if `mirrored`. The
    bytes of a window, from its first pixel to its last, are then one span of memory, so a batch is one `index_select`
    of spans, or of single pixels on devices other than `SPANS_ON`. Memory: (1 + mirrored) * (1 + 2p / H)^2 times the
    images' bytes.
    """

    def __init__(self, images: Tensor, padding: int | None, mirrored: bool, device: torch.device | str | None = None):
        count, channels, self.height, self.width = images.shape
        self.padding, self.mirrored, self.count = padding or 0, mirrored, count
        self.rows, self.columns = self.height + 2 * self.padding, self.width + 2 * self.padding
        shape = (1 + mirrored, count, self.rows, self.columns, channels)
        store = torch.zeros(shape, dtype=torch.uint8, device=device or images.device)
        inner = store[:, :, self.padding : self.padding + self.height, self.padding : self.padding + self.width]
        inner[0].copy_(images.permute(0, 2, 3, 1))
        if mirrored:
            inner[1].copy_(inner[0].flip(2))
        self.channels, self.row_bytes, self.pixels = channels, self.columns * channels, store.view(-1, channels)
        if store.device.type not in SPANS_ON:
            row, column = (torch.arange(side, device=store.device) for side in (self.height, self.width))
            self.spans, self.window = None, row[:, None] * self.columns + column
            return
        span = (self.height - 1) * self.row_bytes + self.width * channels
        positions = (store.numel() - span) // channels + 1 if count else 0
        self.spans = store.view(-1).as_strided((positions, span), (channels, 1))

    @staticmethod
    def bytes_needed(shape: torch.Size, padding: int | None, mirrored: bool) -> int:
        count, channels, height, width = shape
        padding = padding or 0
        return (1 + mirrored) * count * channels * (height + 2 * padding) * (width + 2 * padding)

    def starts(self, index: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """int64 [..., B]: the windows' first pixels. index [B]; draws "crop" [..., B, 2], "flip" [..., B]."""
        row = column = torch.zeros_like(index)
        if self.padding:
            row, column = draws["crop"].unbind(-1)
        if self.mirrored:  # the mirrored copy counts columns from the right
            flip = draws["flip"]
            column = torch.where(flip, 2 * self.padding - column, column)
            index = index + flip * self.count
        return (index * self.rows + row) * self.columns + column

    def gather(self, starts: Tensor) -> Tensor:
        """The windows at `starts` [B] as uint8 [B, H, W, 3]; each pixel is contiguous."""
        if self.spans is None:
            return self.pixels[starts[:, None, None] + self.window]
        spans = self.spans.index_select(0, starts)
        shape = (len(starts), self.height, self.width, self.channels)
        return spans.as_strided(shape, (spans.shape[1], self.row_bytes, self.channels, 1))


def direction(degrees: Tensor) -> Tensor:
    """Cosine and sine of an angle [...], float32 [..., 2]; computed in float64, which not every device has."""
    radians = torch.deg2rad(degrees.double())
    return torch.stack([radians.cos(), radians.sin()], -1).float()


def rotate(images: Tensor, directions: Tensor) -> Tensor:
    """Rotate each image counter-clockwise about its centre; nearest pixel, zeros outside.

    images [B, 3, H, W]; directions [B, 2], see `direction`.
    """
    height, width = images.shape[2:]
    cosine, sine = directions.unbind(-1)
    matrix = torch.stack([cosine, -sine, sine, cosine], -1).view(-1, 2, 2)  # target pixel -> source pixel
    size = torch.stack([images.new_full((), width), images.new_full((), height)])
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    target = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(1, -1, 2).expand(len(images), -1, -1)
    source = target.bmm(matrix.transpose(1, 2) / (size / 2)).view(-1, height, width, 2)  # the image spans -1..1
    return F.grid_sample(images, source, mode="nearest", padding_mode="zeros", align_corners=False)


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor | None = None) -> Tensor:
    """Cut out a box per sample, resize it bilinearly to the image's size, and mirror it where `flip` is true.

    images float [B, 3, H, W]; boxes int64 [B, 4] of (top, left, height, width); flip bool [B].
    """
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.unbind(-1)
    vertical = resampling(top, box_height, height)
    horizontal = resampling(left, box_width, width)
    if flip is not None:
        horizontal = torch.where(flip[:, None, None], horizontal.flip(1), horizontal)
    batch, channels = images.shape[:2]
    narrow = images.reshape(batch, channels * height, width).bmm(horizontal.transpose(1, 2))
    columns = narrow.view(batch, channels, height, width).transpose(1, 2).reshape(batch, height, -1)
    return vertical.bmm(columns).view(batch, height, channels, width).transpose(1, 2)


def resampling(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Bilinear weights [B, size, size] that stretch pixels [start, start + length) to `size` pixels.

    A box is never larger than its image, so nothing shrinks and antialiasing has no effect.
    """
    step = (length.float() / size)[:, None, None]
    pixel = torch.arange(size, device=start.device)
    inside = pixel - start[:, None]  # [B, in] position within the box
    distance = inside[:, None, :] + 0.5 - (pixel[:, None] + 0.5) * step  # [B, out, in]
    weight = (1 - distance.abs()).clamp(min=0) * ((inside >= 0) & (inside < length[:, None]))[:, None, :]
    return weight / weight.sum(-1, keepdim=True)

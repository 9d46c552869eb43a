"""One image file: its pixels as an RGB square, and what is wrong with it.

Grey, palette and CMYK images become RGB. Transparent ones are laid on white. An EXIF orientation turns the image.
Values of more than 8 bits, of whole numbers ("I") or others ("F"), are scaled by a range that is found over all images.
"""

import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np

from kdhelpers.artifacts.impostors import impostor
from kdhelpers.data.readers.memory import free_memory
from kdhelpers.messages import short

DECODING = 2  # version of `read_image`: raise it if its pixels change, so that old caches are not used
Ranges = dict[str, tuple[float, float]]  # "I" or "F" -> what becomes 0..255
LARGE, BYTES_PER_PIXEL = 2**23, 12  # pixels of an image before the memory is asked for; with its copies in RGB
ORIENTATION = 0x0112  # EXIF's tag


@dataclass
class Image:
    """What one file gave. Without `pixels` it is unreadable, or has `deep` values whose range is not known yet."""

    size: tuple[int, int] | None = None  # width, height; None: unreadable
    digest: str = ""  # sha256 of the content
    pixels: np.ndarray | None = None  # uint8 [side, side, 3]
    deep: tuple[str, float, float] | None = None  # kind, least and largest value
    coarse: int | None = None  # of 16 bits per colour, Pillow keeps the upper 8: their largest value
    seconds: float = 0.0  # of reading the file
    faults: dict[str, dict] = field(default_factory=dict)  # see `findings.FAULTS`


def read_image(item: tuple[str, Path | bytes], size: int | None, ranges: Ranges | None) -> Image:
    """The central square of the image, resized to `size` (None: not resized). Faults are described, not raised."""
    _, source = item
    image, start = Image(), perf_counter()
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        image.faults["unreadable"] = {"reason": error.strerror or str(error)}
        return image
    image.seconds, image.digest = perf_counter() - start, hashlib.sha256(content).hexdigest()
    try:
        _decode(image, content, size, ranges or {})
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ... for damaged files
        image.size = image.pixels = image.deep = None
        image.faults = _explained(content, error)
    return image


def _explained(content: bytes, error: Exception) -> dict[str, dict]:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if fake := impostor(content):
        return {"impostor": {"kind": fake[0], "remedy": fake[1]}}
    if content[4:8] == b"ftyp":
        brand = content[8:12].decode("ascii", "replace")
        return {"impostor": {"kind": f"an image of kind {brand.upper()}", "remedy": "convert it to PNG or JPEG"}}
    if isinstance(error, Pillow.DecompressionBombError):
        return {"too_large": {"most": 2 * Pillow.MAX_IMAGE_PIXELS}}
    if isinstance(error, _TooLarge):
        return {"too_large": {"most": error.args[0]}}
    if isinstance(error, _NotFinite):
        return {"not_finite": {}}
    unknown, first = isinstance(error, UnidentifiedImageError), short(error, 200)
    reason = "its format is unknown" if unknown else "truncated" if "truncated" in first.lower() else first
    return {"unreadable": {"reason": reason or type(error).__name__}}


class _NotFinite(ValueError):
    pass


class _TooLarge(ValueError):
    """Its argument is the number of pixels that the free memory can hold."""


def _decode(image: Image, content: bytes, size: int | None, ranges: Ranges) -> None:
    from PIL import Image as Pillow
    from PIL import ImageOps

    with Pillow.open(BytesIO(content)) as opened:
        _check_pixels(opened.width * opened.height)
        coarse = opened.mode[0] in "RL" and ";16" in str(opened.tile[:1])
        if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:  # cameras put a preview into an MPO
            image.faults["animated"] = {}
        if opened.getexif().get(ORIENTATION, 1) in range(2, 9):
            image.faults["turned"] = {}
            opened = ImageOps.exif_transpose(opened)  # noqa: PLW2901  the file stays open below
        image.size = opened.size
        if kind := _deep_kind(opened):
            values = np.asarray(opened)
            if not np.isfinite(values).all():
                raise _NotFinite
            image.deep = kind, values.min().item(), values.max().item()
            if kind not in ranges:
                return
            opened = Pillow.fromarray(_scaled(values, *ranges[kind]))  # noqa: PLW2901
        rgb = _on_white(image, opened)
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        square = rgb.crop((left, top, left + side, top + side))
        image.pixels = resized(np.asarray(square), size or side)
        image.coarse = int(image.pixels.max()) if coarse else None


def _check_pixels(pixels: int) -> None:
    """A file of a few bytes may declare millions of pixels."""
    free = free_memory() if pixels > LARGE else None
    if free is not None and pixels * BYTES_PER_PIXEL > free:
        raise _TooLarge(free // BYTES_PER_PIXEL)


def resized(square: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, 3], with antialiasing, as PIL always does."""
    from PIL import Image as Pillow

    if len(square) == size:
        return square
    return np.asarray(Pillow.fromarray(square).resize((size, size), Pillow.Resampling.BILINEAR))


def _deep_kind(opened) -> str:
    return opened.mode[0] if opened.mode == "F" or opened.mode.startswith("I") else ""


def _on_white(image: Image, opened):
    from PIL import Image as Pillow

    if opened.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in opened.info:
        rgba = opened.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] < 255:
            image.faults["transparent"] = {}
            return Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return opened.convert("RGB")


def range_of(deep: list[tuple[str, float, float]]) -> Ranges:
    """Per kind the range that becomes 0..255: of whole numbers the bits that hold them, of others 0..1 or 0..255 if
    they lie in it, else the least and the largest value."""
    ranges = {}
    for kind in {kind for kind, _, _ in deep}:
        low = min(least for each, least, _ in deep if each == kind)
        high = max(most for each, _, most in deep if each == kind)
        if low >= 0 and kind == "I":
            low, high = 0, max(255, 2 ** int(high).bit_length() - 1)
        elif low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if high <= 1 else 255.0
        ranges[kind] = low, high
    return ranges


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 of the same shape. Whole numbers lose their lower bits; others are rounded, unless 0..255 stays."""
    span = (high - low) or 1
    if np.issubdtype(values.dtype, np.integer):
        return ((values.astype(np.int64) - int(low)) * 256 // (int(span) + 1)).clip(0, 255).astype(np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / span)
    return (scaled if span == 255 else scaled.round()).clip(0, 255).astype(np.uint8)

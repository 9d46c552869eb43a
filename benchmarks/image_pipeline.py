"""The input pipeline for photographs of 96 and of 224 px: resized crop, flip, and colour jitter or RandAugment.

Ours is an epoch of `Batches`, its plan included, over images that were decoded once; "streamed" is the same where they
do not fit the memory. Peer-style: torchvision's usual transforms, one PIL image at a time, behind a DataLoader with two
workers, with a core each where there is one; the JPEG files are opened in every epoch, or, "PIL in memory", were
decoded before, which tells what our cache of decoded images gains from what augmenting whole batches does. Limit:
gather and cast, `index_select` on contiguous rows and `.float()`, with nothing done to the pixels. Equality: our
resized crops against torchvision's, one image at a time.

The pictures are octaves of noise whose strength falls with their fineness, as a photograph's does, mostly grey: at
JPEG quality 90 they take 1.9 bits a pixel at 256 px. The files' side is 1.14 of the size, as where 224 px are cut from
256: the least that a downloaded set has, so that decoding costs the peers no more than it must.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.input_pipeline import BATCH, WORKERS, exhaust, rate, rows_of
from benchmarks.measure import Timing, interleave, note, row
from benchmarks.pair import CLASSES, MEAN, STD, data_of
from kdhelpers.data import Batches, BatchSpec, Split, parse_recipe
from kdhelpers.data.findings import Findings
from kdhelpers.data.readers.decoding import decode
from kdhelpers.device import keep_freed_memory

SIZES = {96: (110, 384), 224: (256, 128)}  # size -> side of the files, images: whole batches, as many for each worker
LEAST = 0.35  # share of the area that a box takes
RECIPES = {
    "jitter": f"resized_crop={LEAST} flip jitter=0.4/0.1",
    "randaugment": f"resized_crop={LEAST} flip randaugment=2/9",
}
TOLERANCE = 0.001  # grey levels: float32 sums in another order, from weights rounded at another place


def run(threads: int = 1, device: str = "cpu", rounds: int = 3) -> list[dict]:
    torch.set_num_threads(threads)
    keep_freed_memory()  # as the package's loop does; so a memory peak holds what the cases before it used
    rows = []
    for size, (side, count) in SIZES.items():
        with TemporaryDirectory() as folder:
            paths = write_photographs(Path(folder), count, side)
            start = time.perf_counter()
            split = read(paths, size)
            rows.append(row(f"{size} px, decoding, once", count / (time.perf_counter() - start), "images/s"))
            for name in RECIPES:
                note(f"  {size} px, {name} ...")
                rows += compare(f"{size} px, {name}", split, paths, name, rounds, device)
        rows += equality(f"{size} px", split)
    return rows


def write_photographs(folder: Path, count: int, side: int) -> list[Path]:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    paths = [folder / f"{place}.jpg" for place in range(count)]
    for path in paths:
        Image.fromarray(photograph(side, generator).permute(1, 2, 0).numpy()).save(path, quality=90)
    return paths


def photograph(side: int, generator: torch.Generator) -> Tensor:
    """uint8 [3, side, side]: smooth shapes, finer and weaker detail, little colour; see above."""
    image, cells, strength = torch.full((1, 3, side, side), 128.0), 4, 40.0
    while cells <= side:
        light, tint = (torch.randn(1, channels, cells, cells, generator=generator) for channels in (1, 3))
        image += strength * F.interpolate(light + 0.4 * tint, size=side, mode="bicubic")
        cells, strength = 2 * cells, 0.6 * strength
    return image[0].clamp(0, 255).to(torch.uint8)


def read(paths: list[Path], size: int) -> Split:
    decoded = decode([(path.name, path) for path in paths], size, f"{size} px", Findings())
    return Split(torch.from_numpy(decoded.images).permute(0, 3, 1, 2).contiguous(), torch.arange(len(paths)) % CLASSES)


def compare(case: str, split: Split, paths: list[Path], name: str, rounds: int, device: str) -> list[dict]:
    """Images/s of every case with one recipe, and the ratios."""
    data, spec = data_of(split), BatchSpec(parse_recipe(RECIPES[name]), BATCH)
    ours = Batches(data, spec, device)
    streamed = Batches(data, spec, device, memory_budget_mib=0, workers=WORKERS)
    files, held = (peer_style(paths, split, name, held) for held in (False, True))
    images = split.images.to(device)
    cases = {
        "peer-style": lambda: exhaust(files),
        "peer-style, PIL in memory": lambda: exhaust(held),
        "limit": lambda: gather_and_cast(images),
        "streamed": lambda: exhaust(streamed.epoch(1)),
        "ours": lambda: exhaust(ours.epoch(1)),
    }
    timings = interleave(cases, rounds, device)
    return [rate(f"{case}: {kind}", timing, len(split)) for kind, timing in timings.items()] + ratios(case, timings)


def ratios(case: str, timings: dict[str, Timing]) -> list[dict]:
    def line(kind: str, other: str) -> dict:
        ratio = timings[other].ratio_to(timings[kind])
        return row(f"{case}: {kind} / {other}", ratio, "x", ratio)

    others = [kind for kind in timings if kind not in ("ours", "streamed")]
    return [*(line("ours", other) for other in others), line("streamed", "peer-style")]


def gather_and_cast(images: Tensor) -> None:
    gather = rows_of(images)
    for index in torch.randperm(len(images), device=images.device).split(BATCH):
        gather(index).to(torch.float32)


class Photographs(Dataset):
    """What torchvision's ImageFolder does: a JPEG file through PIL and one image's transforms. `held`: decoded before,
    once for all epochs."""

    def __init__(self, paths: list[Path], size: int, name: str, held: bool):
        self.paths, self.transform = paths, transforms_of(size, name)
        self.images = [open_image(path) for path in paths] if held else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index] if self.images else open_image(self.paths[index])
        return self.transform(image), index % CLASSES


def open_image(path: Path):
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def transforms_of(size: int, name: str):
    """The recipe called `name` in torchvision's own transforms."""
    from torchvision import transforms

    own = {"jitter": transforms.ColorJitter(0.4, 0.4, 0.4, 0.1), "randaugment": transforms.RandAugment(2, 9)}[name]
    crop = transforms.RandomResizedCrop(size, scale=(LEAST, 1))
    last = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(), own, *last])


def peer_style(paths: list[Path], split: Split, name: str, held: bool) -> DataLoader:
    # The workers live on from epoch to epoch, so that starting them is not counted against the peers.
    images = Photographs(paths, split.images.shape[-1], name, held)
    return DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def equality(case: str, split: Split, checked: int = 2 * BATCH) -> list[dict]:
    """How far our resized crops lie from torchvision's with the same boxes, in grey levels.

    Those of float images differ by rounding only. Those of uint8 images, as PIL has them, are rounded to whole levels
    once per direction, which ours are not: half a level each, for scale.
    """
    apart = differences(split.select(torch.arange(checked)))
    differing, off = int((apart["float"] > TOLERANCE).sum()), f"{case}: crops {TOLERANCE} levels off torchvision's"
    return [
        row(off, differing, "images", None, "0", differing == 0),
        *(row(f"{case}: farthest from its {kind} crops", far.max().item(), "levels") for kind, far in apart.items()),
    ]


def differences(split: Split) -> dict[str, Tensor]:
    """Per image the largest difference from torchvision's crop of the float and of the uint8 image, in grey levels."""
    from torchvision.transforms.v2.functional import resized_crop

    size, apart = split.images.shape[-1], {"float": [], "uint8": []}
    data = replace(data_of(split), mean=(0, 0, 0), std=(1, 1, 1))
    for batch in Batches(data, BatchSpec(parse_recipe(f"resized_crop={LEAST} flip"), BATCH)).epoch(1):
        for place, (index, found) in enumerate(zip(batch.index, batch.views[0] * 255, strict=True)):
            box, flip = batch.draws["resized_crop"][0, place].tolist(), batch.draws["flip"][0, place]
            for kind, image in {"float": split.images[index].float(), "uint8": split.images[index]}.items():
                expected = resized_crop(image, *box, size=[size, size], antialias=True).float()
                apart[kind].append((found - (expected.flip(-1) if flip else expected)).abs().max())
    return {kind: torch.stack(values) for kind, values in apart.items()}

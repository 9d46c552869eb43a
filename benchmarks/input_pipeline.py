"""Goal 1: the input pipeline, from 50,000 stored images to normalised fp32 batches of 64 with crop and flip.

Ours is an epoch of `Batches`, its plan included. Peer-style: torchvision's CIFAR data set as usual (PIL, RandomCrop
with padding 4, flip, ToTensor, Normalize) behind a DataLoader with two workers, with a core each where there is one.
Limit: gather and cast by plain indexing, `images[index].float()`, with nothing done to the pixels; "bare copy" is the
same by `index_select` on contiguous rows, the fastest gather torch has, for scale. Equality: our crops against padding,
cropping and flipping one image at a time with the same draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.measure import Timing, interleave, row
from benchmarks.pair import MEAN, STD, PilImages, data_of
from kdhelpers.data import Batches, BatchSpec, Split, parse_recipe

COUNT, BATCH, PEER_COUNT, WORKERS = 50_000, 64, 6_400, 2
PEER_GOAL, LIMIT_GOAL = 20, 0.65


def run(threads: int = 1, device: str = "cpu", rounds: int = 5) -> list[dict]:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 100, (COUNT,), generator=generator),
    )
    batches = Batches(data_of(split), BatchSpec(parse_recipe("crop flip"), BATCH), device)
    loader, images = peer_style(split, PEER_COUNT), split.images.to(device)
    cases = {
        "peer-style": lambda: exhaust(loader),
        "ours": lambda: exhaust(batches.epoch(1)),
        "limit": lambda: gather_and_cast(images.__getitem__, device),
        "bare copy": lambda: gather_and_cast(rows_of(images), device),
    }
    timings = interleave(cases, rounds, device)
    counts = {name: PEER_COUNT if name == "peer-style" else COUNT for name in cases}
    rows = [rate(name, timing, counts[name]) for name, timing in timings.items()]
    gain = timings["peer-style"].ratio_to(timings["ours"]) * COUNT / PEER_COUNT
    share, bare = (timings[name].ratio_to(timings["ours"]) for name in ("limit", "bare copy"))
    rows.append(row("ours / peer-style, images per s", gain, "x", gain, f">= {PEER_GOAL}", gain >= PEER_GOAL))
    rows.append(row("ours / limit, images per s", share, "x", share, f">= {LIMIT_GOAL}", share >= LIMIT_GOAL))
    rows.append(row("ours / bare copy, images per s", bare, "x", bare))
    apart = differing_crops(split, batches)
    rows.append(row("crops that differ from pad-crop-flip", apart, "images", None, "0", apart == 0))
    return rows


def rate(case: str, timing: Timing, images: int) -> dict:
    per_second = sorted(images / seconds for seconds in timing.seconds)
    spread = {"spread": [per_second[0], per_second[-1]], "peak_mib": timing.peak_mib}
    return {**row(case, images / timing.median, "images/s"), **spread}


def exhaust(batches) -> None:
    for _ in batches:
        pass


def gather_and_cast(gather: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
    for index in torch.randperm(COUNT, device=device).split(BATCH):
        gather(index).to(torch.float32)


def rows_of(images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    flat = images.flatten(1)
    return lambda index: flat.index_select(0, index)


def peer_style(split: Split, count: int) -> DataLoader:
    # The workers live on from epoch to epoch, so that starting them is not counted against the peers.
    return DataLoader(
        PilImages(split, count), batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )


def differing_crops(split: Split, batches: Batches, checked: int = 640) -> int:
    """How many of the first images of an epoch differ in any bit from the same draws applied one image at a time."""
    differing, mean, std = 0, torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    scale, shift = 1 / (255 * std), -mean / std
    for step, batch in enumerate(batches.epoch(1)):
        if step * BATCH >= checked:
            break
        for place, index in enumerate(batch.index.tolist()):
            row_offset, column_offset = batch.draws["crop"][0, place].tolist()
            image = F.pad(split.images[index], (4, 4, 4, 4))
            image = image[:, row_offset : row_offset + 32, column_offset : column_offset + 32]
            image = image.flip(-1) if batch.draws["flip"][0, place] else image
            expected = torch.addcmul(shift, image.float(), scale)
            differing += not torch.equal(batch.views[0][place].cpu(), expected)
    return differing

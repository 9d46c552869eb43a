"""Goals 2 and 3: a whole distillation step (data, losses, metrics, optimiser), resnet32x4 -> resnet8x4, batch 64.

Ours is an epoch of one step of the package's loop, what an epoch does once (plan, reading the metrics) included.
Bound: folded teacher forward, student forward and backward, nothing else. Peer-style: PIL data set, two DataLoader
workers, fp32 NCHW, unfolded teacher, `.item()` in every step. Each case has a process of its own, as in use; they take
turns. Equality: ours and peer-style train the same student on the same batches in fp32, then show their logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import pair
from benchmarks.measure import Timing, interleave_apart, row
from kdhelpers.display.progress import Progress
from kdhelpers.training.loop import train_epoch

BOUND_GOAL, LOGITS_GOAL = 1.05, 1e-4
PEER_GOALS = {"fp32": 1.3, "bf16": 2.5}


def run(threads: int = 1, device: str = "cpu", rounds: int = 15) -> list[dict]:
    torch.set_num_threads(threads)
    precisions = pair.precisions(device)
    kinds = [("peer-style", "fp32"), *((kind, precision) for precision in precisions for kind in ("bound", "ours"))]
    timings = interleave_apart(prepare, kinds, threads, rounds, device)
    rows = [row(name, timing, "ms/step", scale=1e3) for name, timing in timings.items()]
    rows += [line for precision in precisions for line in ratios(timings, precision)]
    apart = logits_difference(pair.teacher_network(), device)
    return [*rows, row("logits apart after 6 steps, fp32", apart, "", None, f"<= {LOGITS_GOAL}", apart <= LOGITS_GOAL)]


def prepare(kind: str, precision: str, threads: int, device: str) -> Callable[[], object]:
    """What one step of a case runs."""
    torch.set_num_threads(threads)
    network = pair.teacher_network()
    if kind == "bound":
        return pair.bare(network, precision, device=device)
    if kind == "ours":
        training = pair.ours(network, precision, steps=1, device=device)
        return lambda: train_epoch([training], Progress())
    peer = pair.PeerStyle(network, pair.student_network(), device)
    batches = pair.pil_batches(pair.images_and_labels(pair.BATCH))
    return lambda: peer.train(batches, steps=1)


def ratios(timings: dict[str, Timing], precision: str) -> list[dict]:
    ours, goal = timings[f"ours {precision}"], PEER_GOALS[precision]
    over = ours.ratio_to(timings[f"bound {precision}"])
    gain = timings["peer-style fp32"].ratio_to(ours)
    return [
        row(f"ours / bound, {precision}", over, "x", over, f"<= {BOUND_GOAL}", over <= BOUND_GOAL),
        row(f"peer-style / ours, {precision}", gain, "x", gain, f">= {goal}", gain >= goal),
    ]


def logits_difference(network: torch.nn.Module, device: str, steps: int = 6) -> float:
    """Largest difference of the two students' logits, in eval, after the same steps from the same weights."""
    training = pair.ours(network, "fp32", steps, device=device)
    peer = pair.PeerStyle(network, training.network, device)
    training.begin_epoch()
    for batch in training.batches.epoch(1):
        training.step(batch)
        peer.step(batch.views[0].contiguous(), batch.labels)
    with torch.no_grad():
        images = torch.cat([batch.views[0] for batch in training.batches.epoch(2)])
        return (training.network.eval()(images) - peer.student.eval()(images).logits).abs().max().item()

"""Goals 2 and 3: a whole distillation step (data, losses, metrics, optimiser), resnet32x4 -> resnet8x4, batch 64.

Ours is an epoch of one step of the package's loop, what an epoch does once (plan, reading the metrics) included.
Bound: folded teacher forward, student forward and backward, nothing else. Peer-style: PIL data set, two DataLoader
workers, fp32 NCHW, unfolded teacher, `.item()` in every step. Equality: both train the same student on the same batches
in fp32, then show their logits.
"""

from __future__ import annotations

from itertools import count

import torch

from benchmarks import pair
from benchmarks.measure import interleave, row
from kdhelpers.loop import Training, has_avx512_bf16
from kdhelpers.progress import Progress

STEPS = 1  # an epoch each: the finer the turns, the less a disturbance meets one case only
BOUND_GOAL, FP32_GOAL, BF16_GOAL, LOGITS_GOAL = 1.05, 1.3, 2.5, 1e-4


def run(threads: int = 1, rounds: int = 15) -> list[dict]:
    torch.set_num_threads(threads)
    network = pair.teacher_network()
    precisions = ["fp32", "bf16"] if has_avx512_bf16() else ["fp32"]
    training = {precision: pair.ours(network, precision, STEPS) for precision in precisions}
    peer = pair.PeerStyle(network, training["fp32"].network)
    batches = pair.pil_batches(pair.images_and_labels(STEPS * pair.BATCH))
    cases = {"peer-style fp32": lambda: peer.train(batches, STEPS)}
    for precision in precisions:
        cases[f"bound {precision}"] = _repeated(pair.bare(network, precision))
        cases[f"ours {precision}"] = _epochs(training[precision])
    timings = interleave(cases, rounds)
    rows = [row(name, timing, "ms/step", scale=1e3 / STEPS) for name, timing in timings.items()]
    for precision, goal in zip(precisions, (FP32_GOAL, BF16_GOAL), strict=False):
        ours = timings[f"ours {precision}"]
        over, gain = ours.ratio_to(timings[f"bound {precision}"]), timings["peer-style fp32"].ratio_to(ours)
        rows.append(row(f"ours / bound, {precision}", over, "x", over, f"<= {BOUND_GOAL}", over <= BOUND_GOAL))
        rows.append(row(f"peer-style / ours, {precision}", gain, "x", gain, f">= {goal}", gain >= goal))
    difference = logits_difference(network)
    rows.append(row("logits apart after 6 steps, fp32", difference, "", None, "<= 1e-4", difference <= LOGITS_GOAL))
    return rows


def _repeated(step):
    return lambda: [step() for _ in range(STEPS)]


def _epochs(training: Training):
    numbers = count(1)
    return lambda: training.train_epoch(next(numbers), Progress())


def logits_difference(network: torch.nn.Module, steps: int = 6) -> float:
    """Largest difference of the two students' logits, in eval, after the same steps from the same weights."""
    training = pair.ours(network, "fp32", steps)
    peer = pair.PeerStyle(network, training.network)
    training.joint.train()
    for batch in training.batches.epoch(1):
        training.step(batch, 1, 0.0)
        peer.step(batch.views[0].contiguous(), batch.labels)
    with torch.no_grad():
        images = torch.cat([batch.views[0] for batch in training.batches.epoch(2)])
        return (training.network.eval()(images) - peer.student.eval()(images).logits).abs().max().item()

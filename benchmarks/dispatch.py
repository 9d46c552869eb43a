"""Goal 6: operations that torch dispatches per distillation step, and how often a step waits for the device.

Operations that compute are counted: views, allocations and changes of metadata are left out. Counted with a
TorchDispatchMode as the difference of a long and a short epoch, so that what an epoch does once drops out. Peer-style
is the main process of the usual loop; what its DataLoader workers do is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import pair
from benchmarks.measure import row
from kdhelpers.display.progress import Progress
from kdhelpers.training.loop import train_epoch

GOAL = 0.55
WITHOUT_WORK = {"aten::empty", "aten::as_strided_", "aten::set_", "aten::_unsafe_view"}
WAIT = "aten::_local_scalar_dense"
SHORT, LONG, BATCH = 2, 4, 8  # the count does not depend on the batch size


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.name().partition(".")[0]
        if name.startswith("aten::") and not function.is_view and name not in WITHOUT_WORK:
            self.counts[name] += 1
        return function(*arguments, **(keywords or {}))


def run(threads: int = 1, device: str = "cpu") -> list[dict]:
    torch.set_num_threads(threads)
    network = pair.teacher_network()
    peer = per_step(lambda steps: _peer_epoch(network, steps, device))
    rows = [row("peer-style", peer.total(), "operations/step")]
    for precision in ("fp32", "bf16"):
        ours = per_step(lambda steps, precision=precision: _our_epoch(network, precision, steps, device))
        ratio = ours.total() / peer.total()
        goal, met = (f"<= {GOAL}x peer-style", ratio <= GOAL) if precision == "fp32" else ("", None)
        rows.append(row(f"ours {precision}", ours.total(), "operations/step", ratio, goal, met))
        rows.append(row(f"ours {precision}, waits for the device", ours[WAIT], "per step", None, "0", not ours[WAIT]))
    return rows


def per_step(epoch: Callable[[int], Callable[[], object]]) -> Counter[str]:
    """Operations by name in one more step of an epoch; `epoch(steps)` prepares one and gives back what runs it."""
    counted = []
    for steps in (SHORT, LONG):
        work = epoch(steps)
        work()  # the first step also makes the optimiser's buffers
        with Counting() as mode:
            work()
        counted.append(mode.counts)
    short, long = counted
    return Counter({name: (long[name] - short[name]) / (LONG - SHORT) for name in long | short})


def _our_epoch(network: torch.nn.Module, precision: str, steps: int, device: str) -> Callable[[], object]:
    training = pair.ours(network, precision, steps, BATCH, device=device)
    return lambda: train_epoch([training], Progress())


def _peer_epoch(network: torch.nn.Module, steps: int, device: str) -> Callable[[], object]:
    peer = pair.PeerStyle(network, pair.student_network(), device)
    batches = pair.pil_batches(pair.images_and_labels(steps * BATCH), BATCH)
    return lambda: peer.train(batches, steps)

"""Goal 5: CRD's loss and gradient at the published size, as products with the whole bank, against the gathered rows.

Peer-style is the usual memory bank: the K + 1 rows of every image are gathered from both banks, multiplied, and left to
autograd. Each case works in a process of its own, so that its memory peak is its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Apart, interleave, row
from kdhelpers.device import keep_freed_memory
from kdhelpers.methods import crd_loss
from kdhelpers.methods.parts.memory_bank import MemoryBank

BATCH, NEGATIVES, IMAGES, DIM, CLASSES = 64, 16384, 50_000, 128, 100
TEMPERATURE, NORMALIZER = 0.07, 50_000.0
SPEED, ERROR = 12, 1e-5


def run(threads: int = 1, device: str = "cpu", rounds: int = 5) -> list[dict]:
    cases = {name: Apart(_prepare, name, threads, device, device=device) for name in CASES}
    try:
        timings = interleave(cases, rounds)
    finally:
        for case in cases.values():
            case.close()
    peer = timings["peer-style"]
    rows = [row(name, timing, "ms", timing.ratio_to(peer), scale=1000) for name, timing in timings.items()]
    for name in ("ours fp32", "ours bf16"):
        speed = peer.ratio_to(timings[name])
        rows.append(row(f"{name}, times faster", speed, "x", speed, f">= {SPEED}x peer-style", speed >= SPEED))
    errors = gradient_errors(device)
    rows.append(
        row("gradient error, fp32", errors["fp32"], "of float64's", None, f"<= {ERROR:g}", errors["fp32"] <= ERROR)
    )
    rows.append(row("gradient error, bf16", errors["bf16"], "of float64's"))
    rows.append(row("gradient error, peer-style", errors["peer-style"], "of float64's"))
    if peer.peak_mib is not None:
        saved = timings["ours fp32"].peak_mib / peer.peak_mib
        rows.append(row("peak memory, ours fp32", saved, "of peer-style", saved))
    return rows


def problem(dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, ...]:
    """Embeddings [B, d], banks [N, d], positives [B], negatives [B, K]; the same values in any dtype."""
    torch.manual_seed(0)
    labels = torch.arange(IMAGES) % CLASSES
    store = MemoryBank(labels, CLASSES, DIM, NEGATIVES)
    index = torch.randperm(IMAGES)[:BATCH]
    pair = (F.normalize(torch.randn(BATCH, DIM), dim=1).to(device, dtype).requires_grad_() for _ in range(2))
    banks = store.student.to(device, dtype), store.teacher.to(device, dtype)
    return *pair, *banks, index.to(device), store.other_classes(labels[index]).to(device)


def ours(values: tuple[Tensor, ...], bf16: bool = False) -> None:
    with torch.autocast(values[0].device.type, torch.bfloat16, enabled=bf16):
        loss = crd_loss(*values, TEMPERATURE, NORMALIZER, NORMALIZER)
    loss.backward()


def peer_style(values: tuple[Tensor, ...]) -> None:
    student, teacher, student_bank, teacher_bank, index, negatives = values
    columns = torch.cat([index[:, None], negatives], 1)
    sum(_gathered(*pair, columns) for pair in ((student, teacher_bank), (teacher, student_bank))).backward()


def _gathered(embedding: Tensor, bank: Tensor, columns: Tensor) -> Tensor:
    """One direction as it is usually written: rows gathered, then the criterion by autograd."""
    rows = bank.index_select(0, columns.flatten()).view(*columns.shape, -1)
    scores = (torch.bmm(rows, embedding[:, :, None]).squeeze(2) / TEMPERATURE).exp() / NORMALIZER
    share = NEGATIVES / IMAGES
    positive = (scores[:, 0] / (scores[:, 0] + share + 1e-7)).log().sum()
    negative = (share / (scores[:, 1:] + share + 1e-7)).log().sum()
    return -(positive + negative) / len(columns)


def two_gathers(values: tuple[Tensor, ...]) -> None:
    columns = torch.cat([values[4][:, None], values[5]], 1).flatten()
    for bank in values[2:4]:
        bank.index_select(0, columns)


def two_products(values: tuple[Tensor, ...]) -> None:
    """The bound: one product with a bank there and one back."""
    with torch.no_grad():
        (values[0] @ values[3].T) @ values[3]


CASES: dict[str, Callable[[tuple[Tensor, ...]], None]] = {
    "peer-style": peer_style,
    "peer-style, its two gathers": two_gathers,
    "ours fp32": ours,
    "ours bf16": lambda values: ours(values, bf16=True),
    "bound: two products with a bank": two_products,
}


def _prepare(name: str, threads: int, device: str) -> Callable[[], object]:
    torch.set_num_threads(threads)
    if not name.startswith("peer-style"):
        keep_freed_memory()  # as the package's loop does; the usual code requests its memory each time
    values = problem(device=device)

    def case() -> None:
        for embedding in values[:2]:
            embedding.grad = None
        CASES[name](values)

    return case


def gradient_errors(device: str) -> dict[str, float]:
    """Largest relative error of both embeddings' gradients, ||g - g64|| / ||g64||."""
    exact = problem(torch.float64)
    ours(exact)
    errors = {}
    for name, case in {"fp32": ours, "bf16": CASES["ours bf16"], "peer-style": peer_style}.items():
        values = problem(device=device)
        case(values)
        pairs = zip(values[:2], exact[:2], strict=True)
        errors[name] = max(((v.grad.cpu() - e.grad).norm() / e.grad.norm()).item() for v, e in pairs)
    return errors

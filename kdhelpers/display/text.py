"""The texts of results and of their notes: the same in tables, pictures, pages and on the terminal."""

import math
import re
from collections.abc import Iterable

from kdhelpers.artifacts import state

MINUS = "−"  # as wide as +, and not a hyphen
MARK = " †"  # after an accuracy that has notes, such as leakage
BUDGET = "epochs times views of an image in a step, as a multiple of 240 epochs of one view"
UNITS = {"pct": "(%)", "points": "(points)", "nats": "(nats)"}  # the last part of a column's name
HEADS = {
    "n": "test images",
    "top1_pct": "top-1 (%)",
    "top5_pct": "top-5 (%)",
    "nll": "NLL (nats)",
    "ece_pct": "ECE (%)",
    "difference_pct": "difference (points)",
    "drop_pct": "drop (points)",
    "agreement_pct": "same prediction (%)",
    "kl_nats": "KL (nats)",
    "kl_at_temperature_nats": "KL at T (nats)",
    "kl_standardized_nats": "KL of standardised logits (nats)",
    "teacher_top1_pct": "teacher top-1 (%)",
    "student_top1_pct": "student top-1 (%)",
    "train_top1_pct": "train top-1 (%)",
    "val_top1_pct": "validation top-1 (%)",
    "probe_pct": "linear probe (%)",
    "cka": "CKA",
    "retained": "retained share",
    "undefined": "images left out (constant map)",
}


def head(column: str) -> str:
    """The head of a table's column with this name in a frame: `KL (nats)` for kl_nats. Unknown names lose their "_"."""
    *words, last = column.split("_")
    return HEADS.get(column) or " ".join([*words, UNITS.get(last, last)])


def interval_text(low: float, high: float, digits: int = 2) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}".replace("-", MINUS)


def signed_text(value: float, digits: int = 2) -> str:
    """`+1.20`, `−0.30`."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def state_text(record: dict) -> str:
    """`finished`, `running`, `failed: <error>` or `interrupted` with its remedy; and how often the run was resumed."""
    now, times = state(record), len(record.get("resumed") or [])
    texts = {
        "interrupted": record.get("error") or "interrupted; the same run continues from its last checkpoint",
        "failed": f"failed: {record.get('error') or 'no reason recorded'}",
    }
    return texts.get(now, now) + (f"; resumed {times} time{'s' * (times > 1)}" if times else "")


def spread_text(mean: float, std: float, n: int) -> str:
    """`61.20 ± 0.40`, or `61.20 (single run)`: one run has no spread."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.2f} (single run)" if n == 1 else f"{mean:.2f} ± {std:.2f}"


def accuracy_text(row: dict) -> str:
    """A summary row's test top-1, marked if it has notes; the caption has their text."""
    return spread_text(row["test_top1_pct"], row["test_top1_std_pct"], row["n"]) + MARK * bool(row["notes"])


def gain_text(points: float) -> str:
    """`+1.20`, in percentage points; a dash for NaN."""
    return "–" if math.isnan(points) else signed_text(points)


def paired_text(mean: float, std: float, n: float) -> str:
    """`+1.20 ± 0.30 (3 seeds)`: a gain over a baseline in pairs of equal seed."""
    if math.isnan(mean):
        return "–"
    return signed_text(mean) + (" (1 seed)" if n == 1 else f" ± {std:.2f} ({n:.0f} seeds)")


def budget_text(multiple: float) -> str:
    """`4×`, a published budget; a dash for NaN."""
    return "–" if math.isnan(multiple) else f"{multiple:g}×"


def pace_text(seconds: float, lockstep: float) -> str:
    """Seconds per epoch; in lockstep with other trainings, the share of their common time."""
    if math.isnan(seconds):
        return "–"
    return f"{seconds:.3g}" + (f" (of {lockstep:.0f} in lockstep)" if lockstep > 1 else "")


def magnitude_text(value: float) -> str:
    """A count in engineering units: `78.0 k`, `12.5 M`; a dash for NaN."""
    if math.isnan(value):
        return "–"
    size, suffix = next((unit for unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= unit[0]), (1, ""))
    return f"{value / size:.3g}{suffix}"


def evidence_note(datasets: Iterable[str]) -> str:
    """The warning next to every result on the embedded digits; empty for other data."""
    return (
        "digits: this shows that the code works, it is not evidence for a method" if "digits" in set(datasets) else ""
    )


def mark_meaning(notes) -> str:
    """The kinds of note on a marked figure, their first words: `† leakage, transductive`; empty without notes."""
    kinds = {kind for note in notes if note for kind in re.findall(r"(?:^|; )([a-z ]+): ", note)}
    return f"{MARK.strip()} {', '.join(sorted(kinds))}" if kinds else ""


def caption(summary) -> str:
    """The conditions of a summary: n, spread, selection rule, budget, device, notes, and a warning for toy data."""
    return " · ".join([headline(summary), *conditions(summary)])


def headline(summary) -> str:
    """What a summary's accuracies are: n and spread, after a warning for toy data."""
    if summary.empty:
        return "no finished run is stored"
    spread = f"test top-1 in %, mean ± sample standard deviation over {seeds_text(summary['n'])}"
    return " · ".join(filter(None, [evidence_note(summary["dataset"]), spread]))


def seeds_text(counts) -> str:
    """`n = 3 seeds`, `n = 1 to 3 seeds`: how many seeds the shown settings have."""
    low, high = int(min(counts)), int(max(counts))
    return f"n = {high} seed{'s' * (high > 1)}" if low == high else f"n = {low} to {high} seeds"


def conditions(summary) -> list[str]:
    """Selection rule, budget and device, if all rows share them; what a gain is; the notes of a summary."""
    if summary.empty:
        return []
    fields, named = ("selection", "budget", "device"), bool(summary["baseline"].any())
    return [
        *(f"{field}: {summary[field].iloc[0]}" for field in fields if summary[field].nunique() == 1),
        "gain in points over the student trained without a teacher, of the same model and budget; paired by seed",
        *(["a gain over a student by another optimiser: none by the own one is stored"] * named),
        *(f"{MARK.strip()} {note}" for note in summary["notes"].unique() if note),
    ]

"""What was measured: `evaluate` and `compare` of networks, and the frames of the analyses."""

from kdhelpers.display.text import gain_text, head, interval_text
from kdhelpers.report.styling import table_of


def metrics(**named: dict[str, float]):
    """The results of `evaluate`, a row per network; or the results of `compare`, a row per pair of networks.

    Example: metrics(student=evaluate(predictions)). A pair is named "KD - DKD" or `kd_against_dkd`.
    """
    if all("difference_pct" in values for values in named.values()):
        return _pairs(named)
    keys = dict.fromkeys(key for values in named.values() for key in values)
    rows = [
        {"network": name} | {head(key): _number_text(key, values.get(key)) for key in keys}
        for name, values in named.items()
    ]
    return table_of(rows, "top-1, top-5: accuracy")


def _pairs(named: dict[str, dict]):
    rows = [
        {
            "pair": name.replace("_against_", " - "),
            "top-1 of each (%)": f"{pair['first_pct']:.2f} and {pair['second_pct']:.2f}",
            "difference (points)": gain_text(pair["difference_pct"]),
            "95 % interval": interval_text(pair["low_pct"], pair["high_pct"]),
            "same prediction (%)": f"{pair['agreement_pct']:.2f}",
            "test images": f"{pair['n']:,}",
        }
        for name, pair in named.items()
    ]
    return table_of(rows, "the interval is over the test images, for these two networks of one seed")


def _number_text(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if key.endswith("_pct") else f"{value:.4g}"


def over_seeds(frame, by: list[str], note: str = ""):
    """The numbers of an analysis frame, a row per `by`: mean ± sample standard deviation over its `seed` column.

    `seeds` counts the seeds of a row; a row without a seed (NaN) counts none. If a row has several seeds, intervals
    within a seed (low, high) and ranks are left out. A mean over some of the seeds is followed by their number.
    """
    groups = list(frame.groupby(by, sort=False))
    several = max(len(group) for _, group in groups) > 1
    numbers = [column for column in frame.select_dtypes("number") if column not in (*by, "seed")]
    if several:
        numbers = [column for column in numbers if not set(column.split("_")) & {"low", "high", "rank"}]
    rows = [
        dict(zip(map(head, by), key, strict=True))
        | {"seeds": int(group["seed"].nunique()) or "–"}
        | _cells(group, numbers)
        for key, group in groups
    ]
    spread = "mean ± sample standard deviation over seeds" if several else "a single run each"
    return table_of(rows, " · ".join(part for part in (note, spread) if part), keys=len(by))


def _cells(group, numbers: list[str]) -> dict[str, str]:
    """Head -> text; the two ends of an interval, x_low and x_high, share a column."""
    cells = {}
    for column in numbers:
        words = column.split("_")
        high = "_".join("high" if word == "low" else word for word in words)
        if high != column and high in numbers:
            measure = head("_".join(word for word in words if word != "low")).partition(" (")[0]
            ends = _mean_text(group[column]), _mean_text(group[high])
            cells[f"{measure} 95 % interval".strip()] = "–" if "–" in ends else " to ".join(ends)
        elif "high" not in words or column.replace("high", "low") not in numbers:
            cells[head(column)] = _mean_text(group[column])
    return cells


def _mean_text(values) -> str:
    """`0.512 ± 0.003`; no spread for one value; `0.512 ± 0.003 (2 of 3)` for a mean over fewer values than rows."""
    finite = values.dropna()
    if finite.empty:
        return "–"
    digits = 0 if values.dtype.kind == "i" else 2 if finite.abs().max() >= 10 else 3
    mean = f"{finite.mean():.{digits}f}"
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 and values.dtype.kind != "i" else ""
    return mean + spread + (f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else "")

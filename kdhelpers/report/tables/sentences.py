"""The accuracy of a network, and a comparison of two by any measure, as a sentence."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kdhelpers.display.text import interval_text, signed_text

Z_95 = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Sentence:
    """A sentence that Jupyter displays with `strong` in bold; `str` is its plain text."""

    before: str
    strong: str
    after: str

    def __str__(self) -> str:
        return self.before + self.strong + self.after

    __repr__ = __str__

    def _repr_html_(self) -> str:
        before, strong, after = map(escape, (self.before, self.strong, self.after))
        return f"<p>{before}<b>{strong}</b>{after}</p>"


def score(name: str, predictions) -> Sentence:
    """The accuracy of a network on the images of its `Predictions`, with a 95 % interval over images (Wilson 1927).

    name: the network's, as a sentence begins with it. Raises ValueError for predictions of no images.
    """
    hits, count = int(predictions.correct.sum()), len(predictions.labels)
    if not count:
        raise ValueError("predictions: of no images; an accuracy needs at least one")
    low, high = (100 * bound for bound in _wilson(hits, count))
    return Sentence(
        f"{name} reaches ",
        f"{100 * hits / count:.1f} %",
        f" of {_images(count)} (95 % interval {low:.1f} to {high:.1f}), one seed.",
    )


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """The shares that a test of level 5 % does not reject after `hits` of `count`; within 0 and 1, also at the ends."""
    share, inflation = hits / count, 1 + Z_95**2 / count
    middle = (share + Z_95**2 / (2 * count)) / inflation
    half = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / inflation
    return max(0.0, middle - half), min(1.0, middle + half)


def verdict(first: str, second: str, comparison: dict[str, float] | Sequence[dict[str, float]]) -> Sentence:
    """Which of two networks is better, by how much, and how sure that is. first, second: their names.

    comparison: the result of `compare` for these networks, or a list of such results, one per seed. The sentence on one
    result has its 95 % interval over images; on several, the mean and the sample standard deviation over the seeds.
    Raises ValueError for an empty list.
    """
    comparisons = [comparison] if isinstance(comparison, dict) else list(comparison)
    if not comparisons:
        raise ValueError("comparison = []: has no result; give what `compare` returns, one result per seed")
    of_one = len(comparisons) == 1
    return _of_one_seed(first, second, comparisons[0]) if of_one else _of_seeds(first, second, comparisons)


def difference(
    measure: str,
    first: str,
    second: str,
    pair: dict[str, float] | Sequence[dict[str, float]],
    unit: str = "",
    digits: int = 3,
) -> Sentence:
    """Which of two networks has more of a measure that is not an accuracy, by how much, and how sure that is.

    pair: the result of `analysis.paired_difference` (difference, low, high, n), or a list of such results, one per
    seed. Raises ValueError for an empty list.
    """
    pairs = [pair] if isinstance(pair, dict) else list(pair)
    if not pairs:
        raise ValueError("pair = []: has no result; give what `paired_difference` returns, one result per seed")
    parts = f"{measure}: {first}", second, f" {unit}".rstrip(), digits
    return _measured_once(*parts, pairs[0]) if len(pairs) == 1 else _measured_by_seed(*parts, pairs)


def _measured_once(first: str, second: str, unit: str, digits: int, pair: dict[str, float]) -> Sentence:
    value, low, high, images = pair["difference"], pair["low"], pair["high"], _images(pair["n"])
    if low <= 0 <= high:
        interval = f", 95 % interval {interval_text(low, high, digits)}, one seed."
        before = f"{first} and {second} do not differ beyond chance on {images}: "
        return Sentence(before, signed_text(value, digits) + unit, interval)
    low, high = sorted((abs(low), abs(high)))
    interval = f" than {second}, 95 % interval {interval_text(low, high, digits)}: {images}, one seed."
    return Sentence(f"{first} has ", f"{abs(value):.{digits}f}{unit} {_order(value)}", interval)


def _measured_by_seed(first: str, second: str, unit: str, digits: int, pairs: list[dict[str, float]]) -> Sentence:
    values = [pair["difference"] for pair in pairs]
    mean, order = statistics.fmean(values), _order(statistics.fmean(values))
    agreeing = sum(_order(value) == order for value in values)
    images = ", ".join(dict.fromkeys(_images(pair["n"]) for pair in pairs))
    before = f"{first} has {order} than {second} with {agreeing} of {len(pairs)} seeds: "
    spread = f" on average, standard deviation {statistics.stdev(values):.{digits}f} over the seeds, {images}."
    return Sentence(before, signed_text(mean, digits) + unit, spread)


def _order(value: float) -> str:
    return "more" if value > 0 else "less"


def _of_one_seed(first: str, second: str, pair: dict[str, float]) -> Sentence:
    points, images = pair["difference_pct"], _images(pair["n"])
    interval = f"95 % interval {interval_text(pair['low_pct'], pair['high_pct'], 1)}"
    if pair["low_pct"] <= 0 <= pair["high_pct"]:
        these = "this" if pair["n"] == 1 else "these"
        before = f"{first} and {second} do not differ beyond chance on {these} {images}: "
        return Sentence(before, f"{signed_text(points, 1)} points", f", {interval}, one seed.")
    if points > 0:
        return Sentence(f"{first} beats {second} by ", f"{points:.1f} points", f" ({interval}): {images}, one seed.")
    return Sentence(f"{first} is ", f"{-points:.1f} points", f" below {second}: {interval}, {images}, one seed.")


def _of_seeds(first: str, second: str, pairs: list[dict[str, float]]) -> Sentence:
    differences = [pair["difference_pct"] for pair in pairs]
    seeds, ahead = len(pairs), sum(difference > 0 for difference in differences)
    behind = sum(difference < 0 for difference in differences)
    if ahead == seeds:
        before = f"{first} beats {second} with each of {seeds} seeds: "
    elif behind == seeds:
        before = f"{first} is below {second} with each of {seeds} seeds: "
    else:
        before = f"{first} beats {second} with {ahead} of {seeds} seeds: "
    images = ", ".join(dict.fromkeys(_images(pair["n"]) for pair in pairs))
    spread = f" on average, standard deviation {statistics.stdev(differences):.1f} over the seeds, {images}."
    return Sentence(before, f"{signed_text(statistics.fmean(differences), 1)} points", spread)


def _images(count: int) -> str:
    return f"{count:,} test image{'' if count == 1 else 's'}"

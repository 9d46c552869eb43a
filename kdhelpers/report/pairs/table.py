"""The table of a group of pairs: methods are rows, pairs are columns, in each our figure and the printed one."""

import math
from html import escape

from kdhelpers.display.text import MARK, evidence_note, spread_text
from kdhelpers.report.tables import plain
from kdhelpers.zoo.benchmark import REFERENCE, in_order

UNDEFINED = ("teacher", "student", REFERENCE)  # rows that arrows say nothing of
OURS, PUBLISHED = "ours", "published"
LEGEND = (
    "test top-1 in %; ours: mean ± sample standard deviation over n seeds; published: as printed",
    "behind each figure the epoch kept: last; val, the best on held-out training images; test, the best on the test "
    "images themselves, worth about +0.3 points",
    f"↑ ↓ above or below {REFERENCE} of the same source, whatever the spread",
    "bold: best of its column, the teacher apart",
)


def table(frame):
    """A group of `beside_ours` as a Styler."""
    import pandas

    printed = bool(frame["published_pct"].notna().any())
    cells, bold = {("", "", "method"): in_order(frame["method"])}, {}
    for head, column in _columns(frame):
        column = column.set_index("method").reindex(in_order(frame["method"]))
        for source, texts, best in _sides(column, printed):
            cells[*head, source], bold[*head, source] = texts, best
    if any(settings := _settings(frame)):
        cells["", "", "our setting"] = settings
    texts = pandas.DataFrame(list(zip(*cells.values(), strict=True)), columns=pandas.MultiIndex.from_tuples(cells))
    css = pandas.DataFrame("", index=texts.index, columns=texts.columns)
    for place, best in bold.items():
        css[place] = ["font-weight: bold" if flag else "" for flag in best]
    return plain(texts.style.apply(lambda _: css, axis=None), " · ".join(_caption(frame, printed)))


def _columns(frame):
    """((pair, budget), its rows), texts escaped, as headers are not by the Styler."""
    several = frame["dataset"].nunique() > 1
    for (dataset, teacher, student, budget), column in frame.groupby(
        ["dataset", "teacher", "student", "budget"], sort=False
    ):
        place = f"{dataset}, {budget}" if several else budget
        yield (escape(f"{teacher} → {student}"), escape(place or "not run yet")), column


def _sides(column, printed: bool):
    """(source, texts, flags of the best) of our figures and, where there are any, of the printed ones."""
    ours, theirs = column["ours_pct"].astype(float), column["published_pct"].astype(float)
    noted = column["ours_note"].map(lambda note: isinstance(note, str) and note != "")
    rows = zip(ours, column["ours_std_pct"], column["n"], _arrows(ours), column["ours_rule"], noted, strict=True)
    yield OURS, [_our_text(*row) for row in rows], _best(ours)
    if printed:
        rows = zip(theirs, column["printed"], _arrows(theirs), column["published_rule"], strict=True)
        yield (
            PUBLISHED,
            ["–" if math.isnan(figure) else " ".join(filter(None, words)) for figure, *words in rows],
            _best(theirs),
        )


def _our_text(mean: float, std: float, n: float, arrow: str, rule: str, noted: bool) -> str:
    """`70.66 ± 0.21 (n 3) ↑ last`; the teacher, which has no rule here, is one network. Notes are marked."""
    if math.isnan(mean):
        return "–"
    figure = spread_text(mean, std, n) if rule else f"{mean:.2f}"
    seeds = f"(n {n:.0f})" if n > 1 else ""
    return " ".join(filter(None, [figure, seeds, arrow, rule])) + MARK * noted


def _arrows(figures) -> list[str]:
    reference = figures.get(REFERENCE, math.nan)
    return [
        "" if method in UNDEFINED or not abs(figure - reference) > 0 else "↑" if figure > reference else "↓"
        for method, figure in figures.items()
    ]


def _best(figures) -> list[bool]:
    students = figures.drop("teacher", errors="ignore").dropna()
    return [
        method != "teacher" and len(students) > 1 and figure == students.max() for method, figure in figures.items()
    ]


def _settings(frame) -> list[str]:
    """Of each method the settings that our figures are of, as far as its name does not say them already."""
    told = frame.dropna(subset=["ours_setting"]).groupby("method")["ours_setting"].unique()
    methods = in_order(frame["method"])
    return ["; ".join(label for label in told.get(method, []) if label != method) for method in methods]


def _caption(frame, printed: bool) -> list[str]:
    notes = frame[["method", "note"]].dropna().drop_duplicates().itertuples(index=False)
    said = [f"{method}, published: {note}" for method, note in notes if note]
    meaning = ["+LS: logit standardisation; FitNet: labels and hint in one stage"] if printed else []
    ours = [f"{MARK.strip()} {note}" for note in frame["ours_note"].dropna().unique() if note]
    return [text for text in (evidence_note(frame["dataset"]), *LEGEND, *said, *meaning, *ours) if text]

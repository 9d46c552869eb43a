"""The table of a group of pairs: methods are rows, pairs are columns, each with our figure and the printed one."""

import math

import pandas

from kdhelpers.display.text import BUDGET, MARK, budget_text, evidence_note, spread_text
from kdhelpers.report.styling import table_of
from kdhelpers.zoo.benchmark import REFERENCE, in_order

WITHOUT_ARROW = ("teacher", "student", REFERENCE)
OURS, PUBLISHED = "ours", "published"
LEGEND = (
    "test top-1 in %; ours: mean ± sample standard deviation over n seeds; published: as printed",
    "after each figure the epoch kept: last; val, the best on held-out training images; test, the best on the test "
    "images themselves, worth about +0.3 points",
    f"↑ ↓ above or below {REFERENCE} of the same source, without regard to the spread",
    "bold: best student of its column",
)
LARGER = f"published budget: {BUDGET}; published figures of more than 1× come last, without arrows and never bold"


def table(frame):
    """A group of `beside_ours` as a table; pairs that do not fit are folded.

    Methods with published figures of a larger budget come last; these figures have no arrows and are never bold.
    """
    printed = bool(frame["published_pct"].notna().any())
    larger = set(frame.loc[frame["published_budget"] > 1, "method"])
    methods = sorted(in_order(frame["method"]), key=lambda method: method in larger)
    cells, bold = {("", "", "method"): methods}, {}
    if larger:
        cells["", "", "published budget"] = _published_budgets(frame, methods)
    for head, column in _columns(frame):
        for source, texts, best in _sides(column.set_index("method").reindex(methods), printed):
            cells[*head, source], bold[*head, source] = texts, best
    if any(settings := _settings(frame, methods)):
        cells["", "", "our setting"] = settings
    texts = pandas.DataFrame(list(zip(*cells.values(), strict=True)), columns=pandas.MultiIndex.from_tuples(cells))
    css = pandas.DataFrame("", index=texts.index, columns=texts.columns)
    for head, best in bold.items():
        css[head] = ["font-weight: bold" if flag else "" for flag in best]
    parts = [evidence_note(frame["dataset"]), *LEGEND[:1], *LEGEND[2:], LARGER if larger else ""]
    caption = " · ".join(filter(None, parts))
    return table_of(texts, caption, conditions=" · ".join(_conditions(frame, printed)), css=css)


def _columns(frame):
    """((pair, budget), its rows)."""
    several = frame["dataset"].nunique() > 1
    keys = ["dataset", "teacher", "student", "budget"]
    for (dataset, teacher, student, budget), column in frame.groupby(keys, sort=False):
        head = f"{dataset}, {budget}" if several else budget
        yield (f"{teacher} → {student}", head or "not run yet"), column


def _sides(column, printed: bool):
    """(source, texts, flags of the best) of our figures and, if there are any, of the printed ones."""
    top1, published = column["test_top1_pct"].astype(float), column["published_pct"].astype(float)
    fields = (column[name] for name in ("test_top1_std_pct", "n", "selection", "notes"))
    yield OURS, [_our_text(*row) for row in zip(top1, *fields, _arrows(top1), strict=True)], _best(top1)
    if printed:
        texts, kept = (column[name].fillna("") for name in ("printed", "published_selection"))
        comparable = published.where(~(column["published_budget"].astype(float) > 1))
        rows = zip(texts, _arrows(comparable), kept, strict=True)
        yield PUBLISHED, [" ".join(filter(None, row)) if row[0] else "–" for row in rows], _best(comparable)


def _our_text(mean: float, std: float, n: float, selection: str, notes: str, arrow: str) -> str:
    """`70.66 ± 0.21 (n 3) ↑ last`; a teacher, which has no selection here, is one network. Notes are marked."""
    if math.isnan(mean):
        return "–"
    figure = spread_text(mean, std, n) if selection else f"{mean:.2f}"
    seeds = f"(n {n:.0f})" if n > 1 else ""
    return " ".join(filter(None, [figure, seeds, arrow, selection.removeprefix("best_")])) + MARK * bool(notes)


def _arrows(figures) -> list[str]:
    reference = figures.get(REFERENCE, math.nan)
    return [
        "" if method in WITHOUT_ARROW or not abs(figure - reference) > 0 else "↑" if figure > reference else "↓"
        for method, figure in figures.items()
    ]


def _best(figures) -> list[bool]:
    students = figures.drop("teacher", errors="ignore").dropna()
    return [method != "teacher" and len(students) > 1 and value == students.max() for method, value in figures.items()]


def _settings(frame, methods: list[str]) -> list[str]:
    """The settings of each method's figures, unless the method's name is the setting's label."""
    labels = frame.dropna(subset=["label"]).groupby("method")["label"].unique()
    return ["; ".join(label for label in labels.get(method, []) if label != method) for method in methods]


def _published_budgets(frame, methods: list[str]) -> list[str]:
    """`1×` or `4×, 8×`: the budgets of each method's published figures in these pairs."""
    budgets = frame[frame["published_pct"].notna()].groupby("method")["published_budget"].unique()
    return [", ".join(map(budget_text, budgets.get(method, []))) or "–" for method in methods]


def _conditions(frame, printed: bool) -> list[str]:
    printed_rows = frame.loc[frame["published_pct"].notna(), ["method", "published_note"]]
    rows = printed_rows.drop_duplicates().itertuples(index=False)
    published = [f"{method}, published: {note}" for method, note in rows if note]
    abbreviations = ["+LS: logit standardisation; FitNet: labels and hint in one stage"] if printed else []
    notes = [f"{MARK.strip()} {note}" for note in frame["notes"].dropna().unique() if note]
    return [text for text in (LEGEND[1], *published, *_open_settings(frame), *abbreviations, *notes) if text]


def _open_settings(frame) -> list[str]:
    """The pairs for which a method has published figures without settings."""
    rows = frame[frame["published_pct"].notna() & (frame["published_settings"] == "open")]
    pairs = (rows["teacher"] + " → " + rows["student"]).groupby(rows["method"], sort=False).unique()
    return [f"{method}: settings not published for {', '.join(names)}" for method, names in pairs.items()]

"""Our stored runs as columns beside the printed ones: a column is a pair at one budget and of one teacher, so that what
stands in a column can be compared. Runs are found by their records, never by file names.
"""

import json
import math

from kdhelpers.report.results import budget_key, distinctions, results, summarize
from kdhelpers.zoo.benchmark import DATASET, is_of_row, nearness, printed_rows, published_pairs

SAME = ("wrn", "resnet", "vgg")  # families that both ends of a pair of same style are of
SAME_STYLE, OTHER_STYLE, OUR_OWN = "same style", "different style", "pairs of our own"
RULES = {"best_val": "val", "last": "last"}  # our selection rules, as short as the printed ones
COLUMNS = (
    "dataset",
    "teacher",
    "student",
    "budget",
    "method",
    "ours_pct",
    "ours_std_pct",
    "n",
    "ours_rule",
    "ours_setting",
    "ours_note",
    "paired_gain_points",
    "paired_gain_std_points",
    "paired_n",
    "printed",
    "published_pct",
    "published_rule",
    "note",
)


def beside_ours(dataset: str | None = None) -> dict:
    """Group of pairs -> DataFrame with a row per method and column; groups without any column are left out.

    The groups are the benchmark's pairs of same and of different style, on cifar100 whether we ran them or not, then
    the other pairs of our stored runs. Columns are COLUMNS: `ours_...` are over n seeds, gains in points over our
    independent student in `paired_n` pairs of one seed; a rule is the epoch kept: last, val (best on held-out images),
    test (best on the test images); `ours_note` is what must be said beside the figure; `printed` has the digits as
    printed. NaN where there is none.
    """
    import pandas

    columns = _our_columns(dataset)
    groups: dict[str, list[dict]] = {SAME_STYLE: [], OTHER_STYLE: [], OUR_OWN: []}
    if dataset in (None, DATASET):
        for pair in published_pairs():
            mine = [column for column in columns if column["pair"] == pair and column["dataset"] == DATASET]
            columns = [column for column in columns if column not in mine]
            groups[_style(*pair)] += [row for column in mine or [_empty_column(pair)] for row in _rows(column, pair)]
    groups[OUR_OWN] = [row for column in columns for row in _rows(column) if row["n"]]
    return {group: pandas.DataFrame(rows, columns=list(COLUMNS)) for group, rows in groups.items() if rows}


def _style(teacher: str, student: str) -> str:
    alike = any(teacher.startswith(family) and student.startswith(family) for family in SAME)
    return SAME_STYLE if alike else OTHER_STYLE


def _empty_column(pair: tuple[str, str]) -> dict:
    nothing = {"teacher_top1_pct": math.nan, "teacher_note": "", "settings": []}
    return {"dataset": DATASET, "pair": pair, "budget": "", **nothing}


def _our_columns(dataset: str | None) -> list[dict]:
    """Our students as columns: those of one teacher and budget, with the students without a teacher at that budget."""
    frame = results(dataset)
    students = frame[(frame["role"] == "student") & frame["test_top1_pct"].notna()]
    settings = _settings(students)
    taught: dict[tuple, list[dict]] = {}
    for row in settings:
        if row["teacher_sha256"]:
            taught.setdefault((row["dataset"], row["pair"], row["teacher_sha256"], row["budget_key"]), []).append(row)
    alone = [row for row in settings if not row["teacher_sha256"]]
    columns = [
        _column(rows, [row for row in alone if row["budget_key"] == rows[0]["budget_key"]]) for rows in taught.values()
    ]
    pairs_taught = {column["pair"] for column in columns if column["dataset"] == DATASET}
    for pair in published_pairs():  # of a benchmark's student that nobody taught yet: each budget
        if pair not in pairs_taught:
            mine = [row for row in alone if (row["dataset"], row["model"]) == (DATASET, pair[1])]
            for budget in dict.fromkeys(row["budget_key"] for row in mine):
                columns.append(_column([], [row for row in mine if row["budget_key"] == budget]) | {"pair": pair})
    return _with_distinct_budgets(columns)


def _settings(students) -> list[dict]:
    """`summarize`'s rows of these runs, with what a column is told by."""
    newest = students.sort_values("finished", kind="stable", na_position="first").drop_duplicates(
        "setting", keep="last"
    )
    known = newest.set_index("setting").to_dict("index")
    weights: dict[str, set] = {}  # of teachers of one name: one that was trained again is another
    rows = []
    for row in summarize(students).to_dict("records"):
        run, record = json.loads(row["setting"]), known[row["setting"]]
        weights.setdefault(row["teacher"], set()).add(run["teacher_sha256"])
        rows.append(
            row
            | {
                "run": run,
                "label": record["label"],
                "budget_key": budget_key(row["setting"]),
                "teacher_sha256": run["teacher_sha256"],
                "pair": (record["teacher_model"] or record["teacher"], row["model"]),
                "finished": record["finished"] or "",
                "teacher_top1_pct": record["teacher_top1_pct"],
                "teacher_note": record["teacher_notes"],
            }
        )
    for row in rows:
        if len(weights[row["teacher"]]) > 1:
            row["teacher"] += f" ({row['teacher_sha256'][:8]})"
    return rows


def _column(taught: list[dict], alone: list[dict]) -> dict:
    first = (taught or alone)[0]
    return {
        "dataset": first["dataset"],
        "pair": first["pair"],
        "budget": first["budget"],
        "teacher_top1_pct": first["teacher_top1_pct"] if taught else math.nan,
        "teacher_note": first["teacher_note"],
        "settings": [*taught, *alone],
        "facts": json.loads(first["budget_key"]) | {"teacher": first["teacher"] or "none"},
    }


def _with_distinct_budgets(columns: list[dict]) -> list[dict]:
    """Where columns of one pair would read the same, each says what it has otherwise: another teacher, a rate, ..."""

    def shown(column: dict) -> tuple:
        return column["dataset"], column["pair"], column["budget"]

    told = []
    for column in columns:
        alike = [other["facts"] for other in columns if shown(other) == shown(column)]
        words = [column["budget"], *distinctions(column["facts"], alike)]
        told.append(column | {"budget": ", ".join(words).replace("teacher teacher_", "teacher_")})
    return told


def _rows(column: dict, pair: tuple[str, str] | None = None) -> list[dict]:
    """The column's rows: the printed ones (with their figures, where it is one of the benchmark's), then other settings
    of ours. Of several settings that fit a row the nearest to the published one has it, then that of most seeds, then
    the newest."""
    left, rows = list(column["settings"]), []
    head = {"dataset": column["dataset"], "teacher": column["pair"][0], "student": column["pair"][1]}
    head |= {"budget": column["budget"]}
    for printed in printed_rows():
        fitting = [setting for setting in left if is_of_row(setting["run"], printed)]
        chosen = max(fitting, key=lambda it: (nearness(it["run"], printed), it["n"], it["finished"]), default=None)
        left = [setting for setting in left if setting is not chosen]
        figures = _published(printed, pair) if pair else {}
        ours = _teacher(column) if printed["method"] == "teacher" else _ours(chosen)
        rows.append(head | {"method": printed["label"]} | ours | figures)
    for setting in sorted(left, key=lambda setting: -setting["test_top1_pct"]):
        rows.append(head | {"method": setting["label"]} | _ours(setting))
    return rows


def _published(printed: dict, pair: tuple[str, str]) -> dict:
    figure = printed[">".join(pair)]
    facts = {"printed": figure, "published_pct": float(figure or "nan"), "published_rule": printed["selection"]}
    return facts | {"note": printed["note"]}


def _teacher(column: dict) -> dict:
    top1_pct = column["teacher_top1_pct"]
    known = top1_pct is not None and not math.isnan(top1_pct)
    return {"ours_pct": top1_pct, "n": int(known), "ours_rule": "", "ours_note": column["teacher_note"]}


def _ours(setting: dict | None) -> dict:
    if setting is None:
        return {"n": 0}
    return {
        "ours_pct": setting["test_top1_pct"],
        "ours_std_pct": setting["test_top1_std_pct"],
        "n": setting["n"],
        "ours_rule": RULES.get(setting["selection"], setting["selection"]),
        "ours_setting": setting["label"],
        "ours_note": setting["notes"],
        **{key: setting[key] for key in ("paired_gain_points", "paired_gain_std_points", "paired_n")},
    }

"""The finish of every table: escaped texts, at most 900 pixels, the rest in an element that unfolds."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pandas

WIDTH = 900  # CSS pixels
LETTER, PADDING = 8, 16  # pixels of a letter in Jupyter's 13 px font, if it is a wide one, and of a cell's two sides
KEY_WIDTH = 150  # of a column that names the rows, if its texts are so long
BREAKS = re.compile(r"[\s_/]+")  # a cell's text wraps here
TOGETHER = re.compile(r"(?<=\d) (?:±|to) (?=[-+\d])|\((?:\d+ seeds?|n \d+|single run)\)")
STYLES = [
    {"selector": "", "props": "margin: 0"},
    {"selector": "caption", "props": "caption-side: top; text-align: left"},
    {"selector": "th, td", "props": "text-align: left; vertical-align: top; padding: 2px 8px; white-space: normal"},
]


@dataclass(frozen=True)
class Table:
    """A table that Jupyter displays as HTML and that prints as text. Without JavaScript; readable without styles.

    `main` and `more` are pandas Stylers. `more` and `conditions` unfold below `main`. `data` has every column's cells.
    """

    data: Any
    main: Any
    caption: str
    more: Any = None
    conditions: str = ""
    more_title: str = "more columns"
    folded: bool = False  # the table unfolds under its caption

    def to_html(self) -> str:
        if self.folded:
            summary, rows = escape(self.caption), _finished(self.main, "").to_html()
            return f"<details><summary>{summary}</summary>{rows}</details>"
        folded = "" if self.more is None else self.more.to_html()
        folded += f"<div>{_breakable(self.conditions)}</div>" if self.conditions else ""
        parts = [self.more_title] * (self.more is not None) + ["conditions"] * bool(self.conditions)
        details = f"<details><summary>{' and '.join(parts)}</summary>{folded}</details>" if folded else ""
        return f'<div style="max-width: {WIDTH}px">{self.main.to_html()}{details}</div>'

    _repr_html_ = to_html

    def __str__(self) -> str:
        frame = self.main.data
        rows = frame.to_string(index=False, float_format="{:.1f}".format, na_rep="–") if len(frame) else ""
        return "\n".join(filter(None, [self.caption, rows]))

    __repr__ = __str__


def column_texts(frame, form, *fields: str) -> list[str]:
    """`form` of each row's values in the columns `fields`."""
    return [form(*values) for values in zip(*(frame[field] for field in fields), strict=True)]


def table_of(
    rows,
    caption_text: str,
    columns: list[str] | None = None,
    keys: int = 1,
    more: Sequence[str] = (),
    conditions: str = "",
    css=None,
) -> Table:
    """A table of rows, of a dict of columns or of a frame.

    The columns `more`, and those that do not fit, move to the folded table, which repeats the first `keys` columns.
    css: a DataFrame of the cells' styles.
    """
    frame = pandas.DataFrame(rows, columns=columns)
    main = _fitting(frame[[name for name in frame if name not in more]], keys)
    folded = [name for name in frame if name not in main]
    repeated = [*frame.columns[:keys], *folded]
    second = _finished(_styler(frame[repeated], css), "") if folded else None
    return Table(frame, _finished(_styler(frame[main], css), caption_text), caption_text, second, conditions)


def folded_rows(frame, caption_text: str, shown: int, title: str, css) -> Table:
    """A table of the first `shown` rows; the others unfold under `title`. css: a DataFrame of the cells' styles."""
    frame = frame.reset_index(drop=True)
    main, rest = (_styler(rows, css.loc[rows.index]) for rows in (frame[:shown], frame[shown:]))
    more = _finished(rest, "") if shown < len(frame) else None
    return Table(frame, _finished(main, caption_text), caption_text, more, more_title=title)


def folded(table: Table) -> Table:
    """The table with its rows under the caption, which unfolds them; a table without rows as it is."""
    return replace(table, folded=len(table.data) > 0)


def plain(styler, caption_text: str) -> Table:
    """A table of all columns of a Styler, which may have styles of its own."""
    return Table(styler.data, _finished(styler, caption_text), caption_text)


def _fitting(frame, keys: int) -> list:
    """The first columns that fit into WIDTH when their texts wrap; at least `keys` and one more.

    Columns under one head, the first levels of a MultiIndex, stay together.
    """
    widths = [_least_width(name, frame[name], place < keys) for place, name in enumerate(frame)]
    names, ends = list(frame), itertools.accumulate(widths)
    fitting = sum(place <= keys or end <= WIDTH for place, end in enumerate(ends))
    while keys + 1 < fitting < len(names) and _group(names[fitting]) == _group(names[fitting - 1]):
        fitting -= 1
    return names[:fitting]


def _group(name):
    return name[:-1] if isinstance(name, tuple) else name


def _least_width(name, values, is_key: bool) -> int:
    heads = name if isinstance(name, tuple) else (name,)
    texts = [TOGETHER.sub(lambda match: match[0].replace(" ", "~"), text) for text in (*heads, *map(str, values))]
    longest = max(len(word) for text in texts for word in BREAKS.split(text))
    width = LETTER * longest + PADDING
    return max(width, min(KEY_WIDTH, LETTER * max(map(len, texts)) + PADDING)) if is_key else width


def _styler(frame, css):
    return frame.style if css is None else frame.style.apply(lambda _: css[frame.columns], axis=None)


def _finished(styler, caption_text: str):
    """Texts escaped, fractions to one digit, no row numbers, aligned left, the caption above."""
    styler = styler.format(_cell, na_rep="–").format_index(_breakable, axis=1).hide(axis="index")  # users choose names
    return styler.set_caption(_breakable(caption_text)).set_table_styles(STYLES)


def _cell(value) -> str:
    return _breakable(f"{value:.1f}" if isinstance(value, float) else str(value))


def _breakable(text: str) -> str:
    """Escaped; a name wraps after an underscore or a slash, a mean and its spread stay on one line."""
    text = TOGETHER.sub(lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), str(text))
    return re.sub("([_/])(?=.)", r"\1<wbr>", escape(text))

"""The finish of every table."""

from html import escape

import pandas


def column_texts(frame, form, *fields: str) -> list[str]:
    """`form` of each row's values in the columns `fields`."""
    return [form(*values) for values in zip(*(frame[field] for field in fields), strict=True)]


def table_of(rows: list | dict, caption_text: str, columns: list[str] | None = None):
    """`plain` for rows, or for a dict of columns."""
    return plain(pandas.DataFrame(rows, columns=columns).style, caption_text)


def plain(styler, caption_text: str):
    """Texts escaped, fractions to one digit, no row numbers, aligned left, the caption above."""
    sides = [
        {"selector": "", "props": "display: block; overflow-x: auto"},
        {"selector": "caption", "props": "caption-side: top; text-align: left; max-width: 62em"},
        {"selector": "th, td", "props": "text-align: left; padding: 2px 8px; white-space: nowrap"},
    ]
    styler = styler.format(escape="html", precision=1, na_rep="–").hide(axis="index")  # users choose names
    return styler.set_caption(escape(caption_text)).set_table_styles(sides)

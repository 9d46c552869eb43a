"""The Markdown pages of the project, their code blocks and tables."""

import re
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def tables(text: str) -> list[pandas.DataFrame]:
    """Every Markdown table of a page, its cells as text."""
    found = re.findall(r"^\|.*\|\n\|[ |-]+\|\n(?:\|.*\|\n)+", text, re.MULTILINE)
    split = [[[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()] for table in found]
    return [pandas.DataFrame(lines[2:], columns=lines[0]) for lines in split]

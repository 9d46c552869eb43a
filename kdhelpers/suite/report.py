"""The report after the jobs: the executed notebooks as HTML, then the gallery over all stored runs."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kdhelpers.artifacts import damaged, folder
from kdhelpers.messages import inform
from kdhelpers.report.gallery import write_gallery
from kdhelpers.suite.notebooks import notebooks_folder
from kdhelpers.suite.profiles import load_profile


def write_report() -> Path:
    """Write the gallery with the profiles' names, name damaged records; returns the path of its start page."""
    for fault in damaged():
        inform(f"warning: {fault}")
    return write_gallery(profiles_by_job())


def profiles_by_job() -> dict[str, Sequence[str]]:
    """Name of a job -> the profiles that have it, without seeds. A faulty profile is left out."""
    found: dict[str, list[str]] = {}
    for path in sorted((notebooks_folder() / "profiles").glob("*.yaml")):
        with suppress(ValueError, OSError):
            for job in load_profile(str(path)):
                found.setdefault(job.name, []).append(path.stem)
    return found


def convert_notebooks() -> None:
    """Write plots/notebooks/<job>.html for each executed notebook that has another time than its page.

    A page gets the time of its notebook, so a clock that was wrong for a while leaves no page out of date. A notebook
    that cannot be converted is named, and the others go on. Pages of notebooks that are gone are removed.
    """
    from kdhelpers.suite.notebook_page import is_page, notebook_page

    executed = folder("executed")
    pages = folder("plots") / "notebooks"
    done = {path.stem: path for path in executed.glob("*.ipynb") if not path.stem.endswith((".running", ".failed"))}
    for name, source in sorted(done.items()):
        target = pages / f"{name}.html"
        time = source.stat().st_mtime
        if target.is_file() and abs(target.stat().st_mtime - time) < 2:  # some disks round times
            continue
        try:
            os.utime(notebook_page(source, target), (time, time))
        except Exception as error:  # nbconvert runs many parts of its own; the report needs none of them
            inform(f"{source.name}: not converted to HTML: {type(error).__name__}: {' '.join(str(error).split())}")
    for page in pages.glob("*.html"):
        if page.stem not in done and page.is_file() and is_page(page):
            page.unlink()

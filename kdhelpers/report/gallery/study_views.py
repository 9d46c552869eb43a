"""The studies as a page shows them: pictures, interactive pages, sentences, executed notebooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pandas

from kdhelpers.report.gallery.overview import Comparison
from kdhelpers.report.gallery.pictures import Page, Picture
from kdhelpers.report.gallery.settings import Setting
from kdhelpers.report.studies import STUDIES, Study, study_of


@dataclass(frozen=True)
class StudyView:
    """`sentences`: of which networks and data, what they are. `notebooks`: executed notebooks as HTML."""

    study: Study
    pictures: list[Picture]
    pages: list[Page]
    sentences: list[tuple[str, list[str]]]
    notebooks: list[Path]


def study_views(
    pictures: Sequence[Picture],
    pages: Sequence[Page],
    notebooks: Sequence[Path],
    settings: Sequence[Setting] = (),
    comparisons: Sequence[Comparison] = (),
) -> list[StudyView]:
    """The studies that have a picture or a page among these, in the order of STUDIES."""
    views = []
    for study in STUDIES:
        own = [picture for picture in pictures if study_of(picture.path.stem) is study]
        own_pages = [page for page in pages if study_of(page.path.stem) is study]
        if own or own_pages:
            of_runs = [("", [sentence]) for sentence in study.from_runs(settings, comparisons)]
            own.sort(key=lambda picture: not fnmatchcase(picture.path.stem, study.numbers))  # with sentences: first
            sentences = [*_of_numbers(study, own), *of_runs]
            views.append(StudyView(study, own, own_pages, sentences, _executed(study, notebooks)))
    return views


def _of_numbers(study: Study, pictures: Sequence[Picture]) -> list[tuple[str, list[str]]]:
    """Of each file of numbers; none of a file that lacks a column, as an earlier version may have written."""
    found = []
    for picture in pictures:
        if study.numbers and picture.data and fnmatchcase(picture.path.stem, study.numbers):
            try:
                sentences = study.from_numbers(pandas.read_csv(picture.path.with_suffix(".csv")))
            except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
                continue
            found.append((_subject(picture.path.stem, study.numbers), sentences))
    return found


def _subject(stem: str, pattern: str) -> str:
    """`resnet8 cifar100` of kl_ranking_resnet8_cifar100."""
    before, _, after = pattern.partition("*")
    return stem.removeprefix(before).removesuffix(after).replace("_", " ")


def _executed(study: Study, notebooks: Sequence[Path]) -> list[Path]:
    """The executed copies of the study's notebooks: 21_gradcam, 21_gradcam_resnet8_cifar100."""
    return [path for path in notebooks if any(f"{path.stem}_".startswith(f"{name}_") for name in study.notebooks)]

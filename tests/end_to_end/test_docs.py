"""What README and docs promise: commands, options, parameters, links, names and figures exist."""

import ast
import dataclasses
import re
import tomllib

import pandas
import pytest
import yaml
from pages import PAGES, README, ROOT, python_blocks, tables

import kdhelpers
from benchmarks import BENCHMARKS, LONG
from benchmarks.gpu.command import parse as parse_gpu
from kdhelpers import METHODS, gains, results
from kdhelpers.cli.commands import main
from kdhelpers.report.results import has_no_teacher
from kdhelpers.suite.notebooks import accepted_by
from kdhelpers.suite.profiles import load_profile, profile_names
from kdhelpers.training.named import all_names
from kdhelpers.training.options import named_values
from kdhelpers.zoo.benchmark import figures_of

STUDIES = "cifar100 supcrd cocord imagenette cifar10_unlabelled capacity".split()
PAGES_WITH_RECORDS = ["README.md", "docs/methods.md", *(f"docs/results/{study}.md" for study in STUDIES)]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_two_commands_and_the_plain_ones_are_there():
    for command in (
        "git clone",
        "make suite",
        "make test",
        "python -m venv",
        "pip install -r requirements.txt",
        "python -m kdhelpers suite",
    ):
        assert command in README


def test_every_page_names_the_repository_of_the_package():
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    for page in [*PAGES, ROOT / "CITATION.cff"]:
        assert set(re.findall(r"https://github\.com/[\w-]+/kdhelpers\b", page.read_text())) <= {repository}, page
    assert repository in README
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == repository


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 136


@every_page
def test_its_lines_are_short(page):
    for line in page.read_text().splitlines():
        assert len(line) <= 300, line


@every_page
def test_its_times_are_measured(page):
    assert not re.findall(r"\bTIME_[A-Z]+", page.read_text())


@every_page
def test_every_command_that_it_names_is_accepted(page):
    """`python -m kdhelpers NAME --option`, `--profile`, `--only` and `python -m benchmarks NAME` exist."""
    for module, name, rest in re.findall(r"python -m (kdhelpers|benchmarks) ([a-z_]+)([^\n`|#]*)", page.read_text()):
        if (module, name) == ("benchmarks", "gpu"):
            parse_gpu(rest.split())  # exits at an option that does not exist
            continue
        if module == "benchmarks":
            assert name in ("all", *BENCHMARKS, *LONG)
            continue
        assert name in main.commands, name
        options = {flag for option in main.commands[name].params for flag in option.opts}
        for option in re.findall(r"--[a-z0-9-]+", rest):
            assert option in options, f"{name} {option}"
        for profile in re.findall(r"--profile (\w+)", rest):
            patterns = re.findall(r"[\w*]+", rest.partition("--only ")[2])
            load_profile(profile, (0, 1, 2), patterns)  # raises ValueError for a name that the profile lacks
        assert name == "network" or set(re.findall(r" (\w+)=", rest)) <= all_names()


def test_every_profile_is_described():
    page = (ROOT / "docs" / "replay.md").read_text()
    own = {name for name in profile_names() if not name.startswith("tuned_")}  # those that `tune` wrote are not
    assert own <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_every_parameter_that_a_page_passes_to_a_notebook_exists():
    lines = [line for page in PAGES for line in page.read_text().replace("\\\n", " ").splitlines()]
    calls = [line for line in lines if re.search(r"papermill .*notebooks/\w+\.ipynb .*-p ", line)]
    assert len(calls) >= 3
    for call in calls:
        notebook = re.search(r"notebooks/\w+\.ipynb", call).group()
        for name in re.findall(r" -p (\w+) ", call):
            assert name in accepted_by(ROOT / notebook), f"{notebook} -p {name}"
    for text in re.findall(r'-p training "(.*?)"', "\n".join(lines)):
        assert named_values(text, "training", "").keys() <= all_names()


@every_page
def test_files_and_headings_that_it_links_to_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_notebook_is_in_the_readme():
    linked = set(re.findall(r"\(notebooks/(\w+)\.ipynb\)", README))
    assert linked == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@every_page
def test_names_that_its_python_imports_exist(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "kdhelpers":
                assert not [name.name for name in node.names if not hasattr(kdhelpers, name.name)]


def test_the_table_of_defaults_is_that_of_the_code():
    (table,) = [table for table in tables((ROOT / "docs/methods.md").read_text()) if "default" in table.columns[-1]]
    written = dict(table.itertuples(index=False))
    for name, method in METHODS.items():
        fields = [f"`{field.name}={field.default}`" for field in dataclasses.fields(method)]
        assert written.pop(f"`{name}`") == (", ".join(fields) or "–"), name
    assert not written


def test_published_figures_are_those_of_the_papers():
    (table,) = [table for table in tables((ROOT / "docs/methods.md").read_text()) if "epoch kept" in table]
    figures = {row["label"]: row for row in figures_of(("resnet56", "resnet20"), "cifar100") if row["printed"]}
    alone = float(figures["student"]["printed"])
    for row in table.to_dict("records"):
        figure = figures[row["method"]]
        assert row["published top-1"] == figure["printed"], row["method"]
        assert row["published gain"] == f"{figure['test_top1_pct'] - alone:+.2f}", row["method"]
        assert row["published budget"] == f"{figure['budget']:g}×", row["method"]
        assert row["epoch kept"] == {"test": "best on test", "": "–"}.get(figure["selection"], figure["selection"])
    assert set(table["method"]) == set(figures) - {"teacher", "student"}


@pytest.fixture(scope="module")
def figures():
    """`mean ± std` of the accuracy of every stored setting, and of its gain over each student without a teacher."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(ROOT))
        settings = [group.set_index("seed") for _, group in results().groupby("setting")]
    accuracies, paired = set(), set()
    for group in settings:
        accuracies.add(spread(group["test_top1_pct"], ""))
        for alone in settings:
            if has_no_teacher(alone["run"].iloc[0]) and set(alone["model"]) == set(group["model"]):
                paired.add(spread((group["test_top1_pct"] - alone["test_top1_pct"]).dropna(), "+"))
    return accuracies, paired


def spread(values, sign: str) -> str:
    return f"{values.mean():{sign}.2f} ± {values.std(ddof=1):.2f}".replace("-", "−")


@pytest.mark.parametrize("page", PAGES_WITH_RECORDS)
def test_accuracies_and_gains_in_its_tables_are_those_of_the_records(page, figures):
    accuracies, paired = figures
    checked = 0
    for table in tables((ROOT / page).read_text()):
        for place, column in enumerate(table.columns):
            known = accuracies if "test top-1" in column else paired if "gain" in column else None
            cells = [cell.strip("*") for cell in table.iloc[:, place] if "±" in cell and known is not None]
            assert not [cell for cell in cells if cell.partition(" (")[0] not in known], column
            checked += len(cells)
    assert checked >= 2


def test_the_readmes_picture_is_that_of_the_records(monkeypatch):
    monkeypatch.setenv("KD_ROOT", str(ROOT))
    saved = pandas.read_csv(
        ROOT / "plots/results_gains_cifar100.csv", keep_default_na=False, na_values={"teacher_top1_pct": ""}
    )
    pandas.testing.assert_frame_equal(saved, gains.by_seed("cifar100"), check_dtype=False)
    means = saved.groupby("method")["gain_points"].mean()
    (caption,) = re.findall(r"!\[(.*)\]\(plots/results_gains_cifar100.png\)", README)
    assert [f"{means[name]:+.1f}" for name in ("DKD", "CRD", "KD", "Hints")] == re.findall(r"\+\d\.\d", caption)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # required by the format
    assert citation["version"] == kdhelpers.__version__
    assert f"[{kdhelpers.__version__}]" in (ROOT / "CHANGELOG.md").read_text()

"""What README and docs promise: commands, options, parameters, links, names and figures exist; their examples run."""

import contextlib
import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
import yaml

import kdhelpers
from kdhelpers import METHODS, artifacts, build_model, gains, results
from kdhelpers.cli.commands import main
from kdhelpers.report.results import has_no_teacher
from kdhelpers.suite.profiles import accepted_by, load_profile, profile_names
from kdhelpers.training.named import all_names
from kdhelpers.training.options import named_values
from kdhelpers.zoo.benchmark import figures_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
README = (ROOT / "README.md").read_text()
TABLES_OF_RECORDS = [
    "README.md",
    "docs/methods.md",
    *(f"docs/results/{name}.md" for name in "cifar100 supcrd cocord imagenette".split()),
]
TABLES_OF_RECORDS += ["docs/results/cifar10_unlabelled.md", "docs/results/capacity.md"]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def tables(text: str) -> list[pandas.DataFrame]:
    """Every Markdown table of a page, its cells as text."""
    found = re.findall(r"^\|.*\|\n\|[ |-]+\|\n(?:\|.*\|\n)+", text, re.MULTILINE)
    split = [[[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()] for table in found]
    return [pandas.DataFrame(lines[2:], columns=lines[0]) for lines in split]


def anchors(page: Path) -> set[str]:
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


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130


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
        if module == "benchmarks":
            assert name == "all" or (ROOT / "benchmarks" / f"{name}.py").is_file(), name
            continue
        assert name in main.commands, name
        options = {flag for option in main.commands[name].params for flag in option.opts}
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in options, f"{name} {option}"
        for profile in re.findall(r"--profile (\w+)", rest):
            patterns = re.findall(r"[\w*]+", rest.partition("--only ")[2])
            load_profile(profile, (0, 1, 2), patterns)  # raises ValueError for a name that the profile lacks
        assert set(re.findall(r" (\w+)=", rest)) <= all_names()


def test_every_profile_is_described():
    page = (ROOT / "docs" / "replay.md").read_text()
    assert set(profile_names()) <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


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
        compile(block, str(page), "exec")
        for statement in re.findall(r"^from kdhelpers\S* import .*$", block, re.MULTILINE):
            exec(statement, {})


def test_the_table_of_defaults_is_that_of_the_code():
    (table,) = [table for table in tables((ROOT / "docs/methods.md").read_text()) if "default" in table.columns[-1]]
    written = dict(table.itertuples(index=False))
    for name, method in METHODS.items():
        fields = [f"`{field.name}={field.default}`" for field in dataclasses.fields(method)]
        assert written.pop(f"`{name}`") == (", ".join(fields) or "–"), name
    assert not written


def test_published_figures_are_those_of_the_papers():
    (table,) = [table for table in tables((ROOT / "docs/methods.md").read_text()) if "epoch kept" in table]
    printed = {row["label"]: row["printed"] for row in figures_of(("resnet56", "resnet20"), "cifar100")}
    alone = float(printed["student"])
    for row in table.to_dict("records"):
        figure = printed[row["method"]]
        assert row["published top-1"] == figure, row["method"]
        assert row["published gain"] == f"{float(figure) - alone:+.2f}", row["method"]


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


@pytest.mark.parametrize("page", TABLES_OF_RECORDS)
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


def test_both_ways_to_use_a_torchvision_students_weights_agree(root, monkeypatch):
    """`load_model` in one line, and plain PyTorch with two lines for the small stem, as in docs/weights.md."""
    name, network = "student_lm_resnet18_cifar100", build_model("resnet18", 100)
    path = artifacts.save_tensors(artifacts.weights_path(name), network.state_dict())
    facts = {
        "mean": [0.51, 0.49, 0.44],
        "std": [0.27, 0.26, 0.28],
        "sha256": artifacts.sha256(path),
        "model": "resnet18",
    }
    artifacts.save_json(path.with_suffix(".json"), facts | {"model_options": {}, "num_classes": 100})
    monkeypatch.chdir(root)
    names = {}
    one_line, plain = [block for block in python_blocks(ROOT / "docs/weights.md") if name in block]
    exec(one_line, names)
    student = names["student"]
    exec(plain, names)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = student((images / 255 - mean) / std).argmax(1)
    assert torch.equal(names["predict"](images), expected)
    assert torch.equal(names["student"](images.float()), student(images.float()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readmes_python_prints_a_verdict_and_its_student_can_be_used(root, monkeypatch):
    """Its blocks in order: three trainings, the stored student through `load_model`, the same in plain PyTorch."""
    monkeypatch.chdir(root)
    first, with_infer, plain = python_blocks(ROOT / "README.md")
    (shown,) = re.findall(r"```text\n(.*)\n```", README)
    printed = re.sub(r"[-+]?\d+\.\d", "0.0", output_of(first)[0].splitlines()[-1])
    assert printed == re.sub(r"[-+]?\d+\.\d", "0.0", shown)
    record = artifacts.load_record("student_lm_resnet8_digits")
    top1_pct = record["metrics"]["test_top1_pct"]
    assert float(output_of(with_infer)[0]) == pytest.approx(top1_pct)
    names = output_of(plain)[1]
    labels = kdhelpers.load_data("digits").test.labels
    assert 100 * (names["logits"].argmax(1) == labels).double().mean().item() == pytest.approx(top1_pct)
    raw = names["student"](kdhelpers.load_data("digits").test.images / 255)
    assert 100 * (raw.argmax(1) == labels).double().mean().item() < 0.5 * top1_pct  # the reason to normalise


def output_of(block: str) -> tuple[str, dict]:
    """What a block prints, and its names."""
    names, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(block, names)
    return output.getvalue(), names


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on an idle machine
def test_the_smoke_suite_replays_every_notebook(root):
    """What `make suite` does once the environment stands: every notebook, its records, plots and the results page."""
    done = subprocess.run(
        [sys.executable, "-m", "kdhelpers", "suite", "--profile", "smoke"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=1800,
        env=os.environ | {"KD_ROOT": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = {record["name"]: record for record in artifacts.records()}
    assert {record["status"] for record in records.values()} == {"finished"}
    assert (
        records["teacher_resnet20_digits"]["metrics"]["test_top1_pct"] > 60
    )  # far above chance, even on two epochs' luck
    assert {f"student_{method}_resnet8_digits" for method in ("si", "ls", "lm", "dkd", "hints", "crd")} <= set(records)
    assert {"best_teacher_color_invariant_digits", "best_student_crd_color_invariant_digits"} <= set(records)
    assert not [name for name in records if "-" in name]  # no notebook trained again what another one had trained
    for name in records:
        assert artifacts.weights_path(name).is_file()
    page = (root / "plots" / "index.html").read_text()
    assert all(name in page for name in records)
    for picture in ("student_lm_resnet8_digits_curves", "distillation_grad_cam_comparison_resnet8_digits"):
        assert (root / "plots" / f"{picture}.png").stat().st_size > 10_000
    executed = {path.stem for path in (root / "notebooks" / "executed").glob("*.ipynb")}
    assert executed >= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}

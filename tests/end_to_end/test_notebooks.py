"""The committed notebooks: anatomy, parameters, exercises, figures. That they run, the smoke suite shows."""

import functools
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill import inspect_notebook

from kdhelpers import Run, results, run_of, summarize
from kdhelpers.display.text import paired_text, spread_text
from kdhelpers.suite.profiles import accepted_by, parameters_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@every_notebook
def test_notebooks_import_from_the_package_itself_alone(path):
    """Its public names stay where they are, when files move."""
    assert not [cell.source for cell in code_cells(path) if re.search(r"(from|import) kdhelpers\.", cell.source)]


@every_notebook
def test_sources_are_clean_nbformat_with_ids_and_no_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(path))


@every_notebook
def test_cells_are_short_and_define_nothing_except_in_exercises(path):
    for number, cell in enumerate(code_cells(path)):
        tags = cell.metadata.get("tags", [])
        is_list = number == 0 or "parameters" in tags  # of imports, of parameters
        assert "exercise" in tags or not re.search(r"^\s*(def|class|while) ", cell.source, re.MULTILINE)
        assert len(cell.source.splitlines()) <= (14 if is_list else 12), cell.source


@every_notebook
def test_prose_leads_through_the_notebook(path):
    """At most two code cells follow each other, except around the parameters, where papermill adds one."""
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in nbformat.read(path, 4).cells)
    assert "ccc" not in kinds
    assert len(kinds) <= 32


METHODS = [path for path in NOTEBOOKS if 3 <= int(path.stem[:2]) <= 12]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_is_taught_before_it_trains(path):
    """The idea, the equation with the code of the loss, expectations, results, what was measured, exercises."""
    cells = nbformat.read(path, 4).cells
    text = "\n".join(cell.source for cell in cells)
    order = [
        "## The idea",
        "## The loss",
        "notebook.source(",
        "## The experiment",
        "= fit",
        "tables.verdict(",
        "## Exercises",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert re.search(r"## What we saw on (CIFAR|Imagenette)", text)
    assert "**What do you expect" in text
    assert re.search(r"^1\. .*^2\. .*^3\. ", text[places[-1] :], re.MULTILINE | re.DOTALL)
    assert "<details>" in text
    assert [cell for cell in cells if "exercise" in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_that_it_shows_are_committed(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    for target in re.findall(r"!\[[^\]]*\]\((?!https?:)([^)]+)\)", text):
        assert (path.parent / target).resolve().is_file(), target


@functools.cache
def measured():
    """`44.83 ± 0.25`: every mean and spread of the committed records, of accuracies and of paired gains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(ROOT))
        rows = summarize(results()).to_dict("records")
    accuracies = {spread_text(row["test_top1_pct"], row["test_top1_std_pct"], row["n"]) for row in rows}
    pairs = ("gain_points", "gain_std_points", "gain_n")
    return accuracies | {paired_text(*(row[field] for field in pairs)).partition(" (")[0] for row in rows}


@every_notebook
def test_what_we_saw_was_measured(path):
    """Every `mean ± spread` of the section is a figure of the committed records."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    for section in (part for cell in cells for part in re.findall(r"## What we saw.*?(?=\n## |\Z)", cell, re.DOTALL)):
        figures = re.findall(r"[+−-]?\d+\.\d\d ± \d+\.\d\d", section)
        assert {figure.replace("-", "−") for figure in figures} <= measured()


SOLUTIONS = {  # exercise -> what the learner changes to correct the mistake
    "03_label_smoothing": ("spread = (1 - label) / (classes - 1)", "spread = 1 / classes"),
    "04_logit_matching": ("return torch", "return temperature**2 * torch"),
    "05_dkd": ("(teacher_logits / temperature)", "(teacher_logits / temperature).masked_fill(true_class, -1e9)"),
    "06_hints": ("sum(dim=(1, 2, 3))", "mean(dim=(1, 2, 3))"),
    "07_crd": ("noise = 1 / len(bank)", "noise = (rows.shape[1] - 1) / len(bank)"),
    "08_supcon": ("scores.log_softmax(1)", "scores.masked_fill(itself, -1e9).log_softmax(1)"),
    "09_supcrd": ("(beta * p * scores", "(beta * (1 - p) * scores"),
    "10_conkd": ("(z - z.mean(0)) / z.std(0)", "(z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)"),
    "11_cocord": ("(negatives.logsumexp", "(torch.cat([positive[:, None], negatives], 1).logsumexp"),
    "15_logit_methods": ("(gamma * student_logits)", "student_logits"),
    "19_optimisers": ("lr * step", "lr * step.sign()"),
    "14_teacher_capacity": ("correction=0", "correction=1"),
    "18_controls": (
        "other = torch.nn.functional.cross_entropy(logits, labels,",
        "other = torch.nn.functional.cross_entropy(logits, labels[partners],",
    ),
    "20_distribution_quality": (
        "log_student.exp() * (log_student - log_teacher)",
        "log_teacher.exp() * (log_teacher - log_student)",
    ),
    "21_gradcam": (
        "first.flatten().double(), second.flatten().double()",
        "(first - first.mean()).flatten().double(), (second - second.mean()).flatten().double()",
    ),
    "22_tsne": (
        "labels[:, None] == labels[None]",
        "(labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool)",
    ),
    "23_what_changed": ("(~taught).sum()", "(alone & ~taught).sum()"),
    "24_deploy": ("weights.abs().max() / 127", "weights.abs().amax(1, keepdim=True) / 127"),
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_check_of_an_exercise_finds_the_mistake_and_accepts_the_correction(name):
    cells = code_cells(ROOT / "notebooks" / f"{name}.ipynb")
    position = next(i for i, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", []))
    imports = cells[0].source[cells[0].source.index("import torch") :].partition("notebook.setup(")[0]
    exercise, check = cells[position].source, cells[position + 1].source
    wrong, right = SOLUTIONS[name]
    assert exercise.count(wrong) == 1
    for code, solved in ((exercise, False), (exercise.replace(wrong, right), True)):
        names = {}
        statements, last = check.rsplit("notebook.check(", 1)
        exec(f"{imports}\n{code}\n{statements}\nanswer = notebook.check({last}", names)
        assert names["answer"].solved is solved


@every_notebook
def test_papermill_and_the_suite_read_the_same_parameters_and_every_parameter_is_explained(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    inspected = inspect_notebook(str(path))
    assert list(inspected) == list(parameters_of(path))
    assert len(inspected) <= 14
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = \S.*?  # \S.*", line), line
    assert all(parameter["help"] for parameter in inspected.values())


@every_notebook
def test_the_colab_badge_names_this_repository(path):
    owner = REPOSITORY.removeprefix("https://github.com/")
    text = path.read_text()
    assert f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name}" in text
    assert set(re.findall(r"https://github\.com/[\w-]+/kdhelpers\b", text)) == {REPOSITORY}


@every_notebook
def test_the_setup_cell_installs_the_package_in_the_same_way(path):
    """tests/end_to_end/test_colab_and_kaggle.py runs it."""
    first, _, imports = code_cells(path)[0].source.partition("kdhelpers\n")
    expected, _, _ = code_cells(NOTEBOOKS[0])[0].source.partition("kdhelpers\n")
    assert first == expected
    assert first.endswith(f"%pip install -q git+{REPOSITORY.removesuffix('kdhelpers')}")
    assert imports.splitlines()[-1].startswith("notebook.setup(drive=False)  # on Colab")


def test_the_package_requires_no_kernel_and_no_upper_version_of_torch():
    """Colab's runtime breaks if pip replaces its kernel, and loses its GPU if pip replaces its torch."""
    lines = (ROOT / "requirements-package.txt").read_text().splitlines()
    required = dict(re.match(r"([\w-]+)(.*)", line).groups() for line in lines if not line.startswith("#"))
    assert not {"jupyter", "ipykernel", "ipython", "notebook", "jupyterlab", "nbconvert", "tornado"} & set(required)
    assert all(re.fullmatch(r">=[\d.]+", required[name]) for name in ("torch", "torchvision", "numpy"))


@every_notebook
def test_the_first_cell_has_title_question_and_expected_time(path):
    first = nbformat.read(path, 4).cells[0].source
    assert first.startswith("# ")
    assert "?**" in first
    assert "Expected time" in first
    assert "Run all" in first


@every_notebook
def test_notebooks_that_it_names_exist(path):
    names = {notebook.stem for notebook in NOTEBOOKS}
    named = set(re.findall(r"`(\d\d_\w+)`", "".join(cell.source for cell in nbformat.read(path, 4).cells)))
    assert named <= names


NOT_OFFERED = {  # fields of a Run that no options file has: set by the notebook, or of use to other methods
    "method", "hyperparameters", "placebo", "role", "model", "pretrained", "start_from", "split_seed", "unlabelled",
    "unlabelled_batch_size", "other_image_size", "optimizer", "optimizer_options", "schedule_options", "warmup_epochs",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "options").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_options_file_explains_every_option_and_its_run_is_valid(path):
    """The parameter cell's names, the method's hyperparameters, the fields of a Run, and the arguments of `fit`."""
    (notebook,) = [candidate for candidate in NOTEBOOKS if candidate.stem.endswith(path.stem)]
    text = path.read_text()
    options = yaml.safe_load(text)
    assert f"-f notebooks/options/{path.name} notebooks/{notebook.name}" in text
    lines = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert [line.split(":")[0] for line in lines if re.search(r"\S +# \S", line)] == list(options)
    assert {*options} <= accepted_by(notebook)
    arguments = {"force_retrain", "cache_teacher"}
    given = {"model" if name == "student" else name: options[name] for name in options if name not in arguments}
    run = run_of({"method": path.stem} | given)
    assert run.schedule == "multistep"
    assert set(options) == {
        *parameters_of(notebook), *run.hyperparameters, *Run.model_fields, *arguments
    } - {"training"} - NOT_OFFERED  # fmt: skip


@every_notebook
def test_pictures_take_the_name_that_a_profile_gives(path):
    """Else two jobs of one notebook overwrite each other's pictures."""
    accepts_name = "name" in accepted_by(path)
    for cell in code_cells(path):
        for name in re.findall(r"plots\.save(?:_page)?\(\w+, (.*?)(?:, |\)$)", cell.source, re.MULTILINE):
            assert not accepts_name or "{student}_{dataset}" not in name, name
            assert "curves_name()" not in name

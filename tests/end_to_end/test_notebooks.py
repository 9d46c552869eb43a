"""The committed notebooks: anatomy, parameters, no outputs. That they run is the smoke suite's job (test_readme)."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill import inspect_notebook

from kdhelpers import Run
from kdhelpers.suite.profiles import parameters_of

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
def test_cells_are_short_and_define_nothing(path):
    assert 9 <= len(nbformat.read(path, 4).cells) <= 14
    for cell in code_cells(path):
        assert not re.search(r"^\s*(def|class|while) ", cell.source, re.MULTILINE)
        if "parameters" not in cell.metadata.get("tags", []):
            assert cell.source.count("\n") < 12


@every_notebook
def test_papermill_and_the_suite_read_the_same_parameters_and_every_parameter_is_explained(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    inspected = inspect_notebook(str(path))
    assert list(inspected) == list(parameters_of(path))
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = \S.*?  # \S.*", line), line
    assert all(parameter["help"] for parameter in inspected.values())


@every_notebook
def test_the_colab_badge_and_the_guarded_install_name_this_repository(path):
    text = path.read_text()
    owner = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name}" in text
    assert f"git clone -q {REPOSITORY} /content/" in text
    setup = code_cells(path)[0].source
    assert not re.search(r"pip install.*\btorch", setup)


@every_notebook
def test_the_first_cell_has_title_question_and_expected_time(path):
    first = nbformat.read(path, 4).cells[0].source
    assert first.startswith("# ")
    assert "?**" in first
    assert "Expected time" in first


@every_notebook
def test_notebooks_that_it_names_exist(path):
    names = {notebook.stem for notebook in NOTEBOOKS}
    named = set(re.findall(r"`(\d\d_\w+)`", "".join(cell.source for cell in nbformat.read(path, 4).cells)))
    assert named <= names


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "options").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_options_file_explains_every_parameter_of_its_notebook_and_its_run_is_valid(path):
    (notebook,) = [candidate for candidate in NOTEBOOKS if candidate.stem.endswith(path.stem)]
    text = path.read_text()
    options = yaml.safe_load(text)
    assert list(options) == list(parameters_of(notebook))
    assert f"-f notebooks/options/{path.name} notebooks/{notebook.name}" in text
    lines = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert [line.split(":")[0] for line in lines if re.search(r"\S +# \S", line)] == list(options)
    fields = {
        "model" if name == "student" else name: options[name] for name in ({*Run.model_fields, "student"} & {*options})
    }
    fields |= {"image_size": options["image_size"] or None, "method": path.stem}
    hyperparameters = {name: options[name] for name in Run(**fields).hyperparameters}
    assert Run(**fields, hyperparameters=hyperparameters).schedule == "multistep"

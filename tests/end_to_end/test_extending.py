"""docs/extending.md: each of its code blocks runs, from a script and as a file of the package."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from kdhelpers import DATASETS, METHODS, MODELS, Run, Source, analysis, fit, load_data, load_model, results
from kdhelpers.cli.listing import listing
from kdhelpers.report.gallery import write_gallery

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
PACKAGE = {  # file of the package -> its test, the registry, and its line as the page gives it
    "kdhelpers/methods/difference.py": ("tests/methods/test_difference.py", METHODS, "METHODS"),
    "kdhelpers/models/networks/tiny.py": ("tests/models/networks/test_tiny.py", MODELS, "MODELS"),
    "kdhelpers/data/readers/squares.py": ("tests/data/readers/test_squares.py", DATASETS, "DATASETS"),
}


def lines(name: str) -> int:
    """Lines of code, without the blank ones."""
    return sum(bool(line.strip()) for line in BLOCKS[name].splitlines())


@pytest.fixture
def run_block(root, monkeypatch):
    """Runs a block as a module of its name; the registries are as before afterwards."""

    def run(name: str):
        path = root / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BLOCKS[name])
        full_name = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(full_name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, full_name, module)
        spec.loader.exec_module(module)
        return module

    before = [dict(registry) for registry in (METHODS, MODELS, DATASETS)]
    yield run
    for registry, entries in zip((METHODS, MODELS, DATASETS), before, strict=True):
        registry.clear()
        registry.update(entries)


def test_examples_are_short_and_all_are_run():
    scripts = ["my_method.py", "my_network.py", "my_data.py"]
    others = ["check_loss.py", "my_models.py", "my_pair.py"]
    assert set(BLOCKS) == {*scripts, *others, *PACKAGE, *(test for test, *_ in PACKAGE.values())}
    assert all(lines(name) <= 25 for name in BLOCKS)
    for what, script, (file, (test, *_)) in zip(
        ("method", "network", "data set"), scripts, PACKAGE.items(), strict=True
    ):
        assert f"| {what} | {lines(script)} | {lines(file) + lines(test) + 2} |" in PAGE


def has_page(student):
    """Whether the gallery has a page of the student's setting that names its record."""
    pages = (write_gallery().parent / "pages").glob("*.html")
    return any(student.name in page.read_text(encoding="utf-8") for page in pages)


def test_a_method_from_a_script(run_block, capsys):
    student = run_block("my_method.py").student
    assert student.name == "student_difference_resnet8_digits"
    assert student.name in capsys.readouterr().out
    assert student.run.hyperparameters == {"weight": 0.5}
    assert set(student.history[0]) >= {"ce", "difference"}
    assert fit(student.run).cached
    assert "logit difference (weight=0.5)" in set(results()["label"])
    with pytest.raises(ValueError, match=r"weight = -1.0: must lie in \[0, 1000000.0\]"):
        Run(method="difference", teacher="resnet8", hyperparameters={"weight": -1})
    assert "difference " in listing("methods")
    del METHODS["difference"]  # another process has not registered it
    assert student.name in listing("runs")
    assert has_page(student)
    assert "DIFFERENCE (weight=0.5)" in set(results()["label"])
    with pytest.raises(ValueError, match=r"register your own: METHODS\['difference'\] = "):
        Run(method="difference", teacher="resnet8")


def test_a_network_from_a_script(run_block):
    student = run_block("my_network.py").student
    assert student.name == "student_si_tiny_digits"
    assert student.run.model_options == {"width": 32}
    data = load_data("digits", image_size=16)
    maps = analysis.gradcam_maps(load_model(student.name), data, data.test.labels[:2])
    assert maps.shape == (2, 16, 16)
    quick = {"dataset": "digits", "image_size": 16, "epochs": 2, "batch_size": 512}
    hints = {"method": "hints", "hyperparameters": {"hint_epochs": 1}}
    assert "hint" in fit(Run(model="tiny", teacher=student.name, **hints, **quick), data).history[0]
    del MODELS["tiny"]
    with pytest.raises(ValueError, match=r"register your own: MODELS\['tiny'\] = "):
        load_model(student.name)
    assert student.name in listing("runs")
    assert has_page(student)


def test_networks_by_name(run_block, capsys):
    pytest.importorskip("timm")
    run_block("my_models.py")
    pair = run_block("my_pair.py")
    names = ["teacher_timm-vit_tiny_patch16_224_digits", "student_lm_my_models-TinyNet_digits"]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in printed] == [pair.teacher.name, pair.student.name] == names
    assert all(float(top1) > 15 for _, top1 in printed)
    assert pair.student.run.model_options.keys() == {"source"}


def test_a_data_set_from_a_script(run_block):
    student = run_block("my_data.py").student
    counts = {"image_size": 16, "classes": 2, "train": 180, "val": 20, "test": 80}
    assert counts.items() <= student.record["data"].items()
    assert student.metrics["test_top1_pct"] >= 50
    assert load_data("squares", image_size=8).image_size == 8
    assert "squares" in listing("data")


@pytest.mark.parametrize("file", PACKAGE)
def test_a_file_of_the_package(run_block, file):
    module, (test, registry, name) = run_block(file), PACKAGE[file]
    (line,) = re.findall(rf"its line to `{name}`: `(.*),`\. ", PAGE)
    entries = eval(f"{{{line}}}", vars(module) | {"Source": Source, Path(file).stem: module})
    assert entries
    for key, entry in entries.items():
        registry[key] = entry
    tests = [function for key, function in vars(run_block(test)).items() if key.startswith("test_")]
    assert tests
    for function in tests:
        function()


def test_the_check_of_a_loss(run_block):
    run_block("check_loss.py")


def test_what_is_not_an_entry_is_refused(run_block):
    for registry, message in (
        (METHODS, "METHODS['mine']: got a int; register a subclass of Method itself, without parentheses"),
        (MODELS, "MODELS['mine']: got a int; write Architecture(build, feature_maps, classifier)"),
        (DATASETS, "DATASETS['mine']: got a int; write Source(description, read=function)"),
    ):
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            registry["mine"] = 1
        with pytest.raises(ValueError, match="use letters, digits and"):
            registry["a/b"] = next(iter(registry.values()))
    DATASETS["mine"] = Source("", read=lambda image_size: (1, 2))
    with pytest.raises(TypeError, match=r"DATASETS\['mine'\].read: returned a tuple; return dataset_from_arrays"):
        load_data("mine")

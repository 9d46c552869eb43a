"""A profile does not make the package import code."""

import pytest
from suite_fixtures import job, make_root, profile, write_notebook

from kdhelpers import python_paths
from kdhelpers.suite import run_suite
from kdhelpers.suite.own_networks import require_given_networks
from kdhelpers.suite.profiles import load_profile


@pytest.mark.parametrize(
    "parameters", [{"teacher": "evil:Net"}, {"teachers": "resnet8 evil:Net"}, {"training": "lr=0.1 teacher='evil:Net'"}]
)
def test_a_profile_imports_no_code_that_the_user_did_not_give(tmp_path, monkeypatch, parameters):
    root = make_root(tmp_path, monkeypatch)
    monkeypatch.setattr(python_paths, "_given", set())
    names = [f"{name}: str = ''" for name in parameters]
    write_notebook(root / "notebooks", "own", ["\n".join(names)])
    own = profile(root, job("a", "own", parameters=parameters))
    with pytest.raises(
        ValueError, match="job a of .*tiny.yaml names this code, and only code that you give is imported"
    ):
        run_suite(own)
    python_paths.use_network("evil:Net")
    require_given_networks(root, load_profile(own))


def test_options_are_not_taken_for_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(python_paths, "_given", set())
    root = make_root(tmp_path, monkeypatch)
    write_notebook(root / "notebooks", "own", ["model_options: str = ''"])
    require_given_networks(
        root, load_profile(profile(root, job("a", "own", parameters={"model_options": "stem:cifar"})))
    )

"""Methods that match logits, trained on the digits: in each precision, and resumed to the same bits."""

import pytest
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, artifacts, fit

METHODS = {"normkd": {}, "wsld": {}, "ctkd": {}, "mlkd": {"augmentation": "crop flip randaugment=2/10 cutout=8"}}


@pytest.fixture(autouse=True)
def teacher(root, data):
    return fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)


def run_of(method, **changes):
    return Run(**QUICK | METHODS[method] | changes, method=method, teacher="resnet8")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_its_loss_falls_in_each_precision(data, method, precision):
    first, *_, last = fit(run_of(method, precision=precision, epochs=3), data).history
    assert last["loss"] < first["loss"]
    assert last["ce"] < first["ce"]


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_in_the_same_bits(data, method):
    run = run_of(method)
    whole = fit(run, data)
    expected = weights(whole)
    artifacts.weights_path(whole.name).unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1), force_retrain=True)
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 1
    assert same(weights(resumed), expected)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]

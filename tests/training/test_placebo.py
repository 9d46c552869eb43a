"""Placebos: whose outputs an image gets, and that nothing else of a training changes."""

import math
from dataclasses import replace

import pytest
import torch
from test_graphs import RecordingGpu, assert_close, students, trained
from training_fixtures import QUICK, Recorder, same, train_one_epoch, training_of, weights

from kdhelpers import Run, build_model, fit, fit_sweep
from kdhelpers.data import Unlabelled
from kdhelpers.models import Outputs
from kdhelpers.training import placebo
from kdhelpers.training.module import DistillationModule
from kdhelpers.training.placebo import Placebo, mean_prediction, partners
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import NotKept

KINDS = ("shuffled", "mean")
TAUGHT = QUICK | {"method": "dkd", "teacher": "resnet8", "augmentation": "crop=2 flip"}


def teacher(view, stop_at=None):
    """Outputs that name the image of which they are: view [B, 3, H, W] holds the image's number in each pixel."""
    if stop_at:
        return Outputs(None, None, {stop_at: view})
    return Outputs(view.mean((2, 3)), view.flatten(1), {"a": view, "b": view[:, :1] + 7}, view * 2, {"b": view - 1})


def view(count=6, seed=0):
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("resnet8", 10).eval()


@pytest.fixture
def stored(root, data):
    """A trained teacher."""
    fit(Run(**QUICK, role="teacher"), data)


def test_all_outputs_of_an_image_are_those_of_one_other_image():
    torch.manual_seed(0)
    images = view()
    own, got = teacher(images), Placebo(teacher, "shuffled")(images)
    for image in range(6):
        (source,) = [k for k in range(6) if torch.equal(own.logits[k], got.logits[image])]
        assert source != image
        assert torch.equal(got.embedding[image], own.embedding[source])
        for name in ("a", "b"):
            assert torch.equal(got.feature_maps[name][image], own.feature_maps[name][source])
        assert torch.equal(got.final_map[image], own.final_map[source])
        assert torch.equal(got.pre_activations["b"][image], own.pre_activations["b"][source])


@pytest.mark.parametrize("count", [2, 3, 4, 64, 127])
def test_partners_are_a_permutation_without_fixed_points(count):
    torch.manual_seed(0)
    for _ in range(50):
        found = partners(count)
        assert sorted(found.tolist()) == list(range(count))
        assert all(partner != image for image, partner in enumerate(found.tolist()))


def test_every_other_image_is_a_partner_equally_often():
    torch.manual_seed(0)
    counts = torch.zeros(5, 5)
    for _ in range(4000):
        counts[torch.arange(5), partners(5)] += 1
    others = counts[~torch.eye(5, dtype=torch.bool)]
    assert (others - 1000).abs().max() < 120  # 4.4 standard deviations
    assert counts.diagonal().sum() == 0


def test_views_of_equally_many_images_have_one_permutation_within_a_step():
    torch.manual_seed(0)
    step = Placebo(teacher, "shuffled")
    first, second, fewer = step(view(64)), step(view(64) + 5), step(view(40))
    assert torch.equal(second.embedding, first.embedding + 5)
    assert len(fewer.logits) == 40
    assert torch.equal(step(view(64), stop_at="a").feature_maps["a"], first.feature_maps["a"])
    assert not torch.equal(Placebo(teacher, "shuffled")(view(64)).logits, first.logits), "another step, another order"


def test_the_mean_is_of_predictions_embeddings_and_maps():
    images = view().double()
    own, got = teacher(images), Placebo(teacher, "mean")(images)
    for column in range(3):
        total = 0.0
        for row in own.logits.tolist():
            total += math.exp(row[column]) / sum(map(math.exp, row))
        for image in range(6):
            assert got.logits[image, column].item() == pytest.approx(math.log(total / 6), rel=1e-12)
    for image in range(6):
        torch.testing.assert_close(got.embedding[image], sum(own.embedding) / 6)
        torch.testing.assert_close(got.feature_maps["b"][image], sum(own.feature_maps["b"]) / 6)
        torch.testing.assert_close(got.final_map[image], sum(own.final_map) / 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_mean_prediction_is_finite_for_very_sure_teachers_and_keeps_the_dtype(dtype):
    logits = torch.tensor([[2000.0, 0.0, -2000.0], [2000.0, 5.0, -2000.0]], dtype=dtype)
    found = mean_prediction(logits)
    assert found.dtype == dtype
    assert found[0].tolist() == pytest.approx([0.0, -2000 + 5 + math.log((1 + math.exp(-5)) / 2), -4000.0], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_a_teacher_does_not_give_stay_away(kind):
    kept = Placebo(lambda view, stop_at=None: Outputs(view.mean((2, 3)), None, NotKept()), kind)(view())
    assert kept.embedding is None
    with pytest.raises(KeyError, match="feature maps are not kept"):
        kept.feature_maps["layer1"]
    stopped = Placebo(teacher, kind)(view(), stop_at="layer2")
    assert (stopped.logits, stopped.embedding, list(stopped.feature_maps)) == (None, None, ["layer2"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_image_is_refused(kind):
    with pytest.raises(ValueError, match=f"placebo = {kind}: a batch of one image .* raise batch_size"):
        Placebo(teacher, kind)(view(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["lm", "dkd", "dkd_standardized", "hints", "supcrd"])  # without draws of their own
def test_the_placebo_of_a_constant_teacher_is_the_method_itself(data, method, kind):
    """A teacher that outputs the same for every image: for the mean up to a constant that is added to its logits."""

    class Constant(Teacher):
        def __call__(self, view, stop_at=None):
            outputs = super().__call__(torch.zeros_like(view), stop_at)
            return placebo._each(lambda value: value[:1].expand_as(value), outputs)

    torch.manual_seed(0)
    constant = Constant(build_model("resnet8", 10).eval())
    fields = TAUGHT | {"method": method, "selection": "last", "epochs": 3}
    plain, control = (training_of(Run(**fields, placebo=each), data, constant) for each in ("", kind))
    for training in (plain, control):
        train_one_epoch(training)
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(control.network.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_placebo_trains_another_student_on_the_same_images_from_the_same_weights(data, network, kind, monkeypatch):
    seen = []
    monkeypatch.setattr(DistillationModule, "forward", _watched(DistillationModule.forward, seen))
    plain, control = students([Run(**TAUGHT), Run(**TAUGHT, placebo=kind)], data, network, 1)[0]
    assert same(plain.network.state_dict(), control.network.state_dict())
    for training in (plain, control):
        train_one_epoch(training)
    half = len(seen) // 2
    assert all(torch.equal(*pair) for pair in zip(seen[:half], seen[half:], strict=True))
    assert not same(plain.network.state_dict(), control.network.state_dict())


def _watched(forward, seen):
    def watched(self, batch, epoch):
        seen.append(batch.views[0].clone())
        return forward(self, batch, epoch)

    return watched


@pytest.mark.parametrize("method", ["dkd", "hints"])
def test_graphed_steps_and_blocks_train_the_placebo_of_the_usual_steps(data, network, method):
    taught = TAUGHT | {"method": method, "selection": "last", "batch_size": 16}
    taught |= {"hyperparameters": {"hint_epochs": 1}} if method == "hints" else {}
    runs = [Run(**taught, placebo=kind) for kind in ("", *KINDS)]
    usual, graphed = trained(runs, data, network), trained(runs, data, network, 3, RecordingGpu())
    assert_close(usual, graphed)
    assert not same(usual[0].network.state_dict(), usual[1].network.state_dict())


def test_in_lockstep_all_share_a_forward_and_end_with_the_bits_that_they_have_alone(stored, data, monkeypatch):
    runs = [Run(**TAUGHT, placebo=kind) for kind in ("", *KINDS)]
    alone = [fit(run, data) for run in runs]
    shared, once = [], SharedTeacher._once
    monkeypatch.setattr(SharedTeacher, "_once", lambda self, *a, **kw: shared.append(self) or once(self, *a, **kw))
    together = fit_sweep(runs, data, force_retrain=True)
    assert shared[0].forwards == 3 + 2 * 4  # the shapes for three students; the steps of two epochs
    assert all(same(weights(one), weights(other)) for one, other in zip(alone, together, strict=True))
    assert [run.name for run in together] == [
        "student_dkd_resnet8_digits",
        "student_dkd_placebo_shuffled_resnet8_digits",
        "student_dkd_placebo_mean_resnet8_digits",
    ]
    assert together[1].record["run"]["placebo"] == "shuffled"


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_placebo_ends_with_the_same_bits(stored, data, kind):
    run = Run(**TAUGHT, placebo=kind)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    progress = Recorder()
    resumed = weights(fit(run, data, progress=progress))
    assert progress.done == 1
    assert same(resumed, weights(fit(run, data, force_retrain=True)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_outputs_make_the_live_teachers_placebo(stored, data, kind, precision):
    run = Run(**TAUGHT | {"precision": precision, "lr": 1e-3}, placebo=kind)
    live = weights(fit(run, data))
    assert all(value.isfinite().all() for value in live.values())
    assert same(live, weights(fit(run, data, force_retrain=True, cache_teacher=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_images_have_placebos_among_themselves(root, data, kind):
    images = data.train.images[:50].contiguous()
    mixed = replace(data, unlabelled=Unlabelled(images, [str(number) for number in range(50)], "train:50"))
    fit(Run(**QUICK, role="teacher", unlabelled="train:50"), mixed)
    fields = TAUGHT | {"method": "lm_unlabelled", "unlabelled": "train:50", "unlabelled_batch_size": 20}
    plain, control = (fit(Run(**fields, placebo=each), mixed) for each in ("", kind))
    assert not same(weights(plain), weights(control))


def test_a_placebo_is_part_of_the_identity_only_if_there_is_one(root):
    plain = Run(**TAUGHT)
    assert plain.id == Run(**TAUGHT, placebo="").id
    assert len({plain.id, *(Run(**TAUGHT, placebo=kind).id for kind in KINDS)}) == 3
    assert Run(**TAUGHT, placebo="mean", name="mine").artifact_name == "mine"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "si"}, "placebo = shuffled: method si has no teacher; leave it out"),
        ({"method": "dkd", "teacher": "resnet8", "placebo": "median"}, "placebo = 'median': Input should be"),
    ],
)
def test_what_has_no_placebo_is_refused(root, fields, message):
    with pytest.raises(ValueError, match=message):
        Run(**{"placebo": "shuffled"} | fields)

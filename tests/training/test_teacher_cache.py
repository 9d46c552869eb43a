"""Stored teacher outputs: looked up, they train the very student that the live teacher trains."""

import dataclasses

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, artifacts, fit, fit_sweep, load_model
from kdhelpers.data import Batches, BatchSpec, parse_recipe, plan_epoch
from kdhelpers.data.augmentation.plan import view_numbers
from kdhelpers.methods import METHODS
from kdhelpers.training import teacher_cache as outputs
from kdhelpers.training.teacher import Teacher, load_teacher
from kdhelpers.training.teacher_cache import PARTS, TeacherCache, cached_teacher

TAUGHT = QUICK | {"teacher": "teacher_resnet8_digits", "augmentation": "crop flip"}
SMALL = {
    "crd": {"negatives": 60},
    "lm_unlabelled": {"unlabelled_weight": 0},  # on unlabelled images: see test_unlabelled_runs
    "cocord": {"kd_weight": 1.0, "queue_size": 64, "hidden_dim": 32, "dim": 32, "predictor_dim": 16},
}
LOOKED_UP = [  # in full: strong views and mixed images are computed, see test_mlkd and test_lm_mixed
    name
    for name, method in METHODS.items()
    if method.needs_teacher and set(method.reads) <= set(PARTS) and not method.weak_view and not method.mixes_images
]
IMAGES, VIEWS = 120, 162


@pytest.fixture(scope="module")
def trained_teacher(tmp_path_factory, data):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KD_ROOT", str(tmp_path_factory.mktemp("teacher")))
        trained = fit(Run(**QUICK, role="teacher"), data)
        return {path.name: path.read_bytes() for path in trained.weights_path.parent.glob(f"{trained.name}.*")}


@pytest.fixture
def asked(root, trained_teacher, monkeypatch):
    """The teacher in this test's root; a list of how many images each of its forwards saw."""
    for name, content in trained_teacher.items():
        artifacts.write_atomic(artifacts.folder("weights") / name, content)
    seen, compute = [], Teacher.__call__

    def counted(self, view, stop_at=None):
        seen.append(len(view))
        return compute(self, view, stop_at)

    monkeypatch.setattr(Teacher, "__call__", counted)
    return seen


def train(data, stored=True, **changes):
    run = Run(**TAUGHT | {"method": "lm"} | changes)
    return weights(fit(run, data, progress=Recorder(), cache_teacher=stored, force_retrain=True))


def table_files(kind):
    return sorted(artifacts.folder("outputs").glob(f"*.{kind}"))


def batches_of(data, augmentation="crop flip", views=1, seed=0):
    return Batches(data, BatchSpec(parse_recipe(augmentation), 32, views, seed))


@pytest.mark.parametrize("method", LOOKED_UP)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_student_of_the_table_is_the_live_teachers_student_bit_for_bit(data, asked, method, precision):
    changes = {"method": method, "precision": precision, "hyperparameters": SMALL.get(method, {}), "selection": "last"}
    live = train(data, stored=False, **changes)
    filled = train(data, **changes)
    asked.clear()
    looked_up = train(data, **changes)
    assert max(asked, default=0) <= 2, "besides the images that shapes are taken from, nothing is computed again"
    assert same(live, filled)
    assert same(live, looked_up)


def test_what_is_not_stored_yet_is_computed_and_nothing_else(data, asked):
    train(data)
    asked.clear()
    train(data, seed=1)
    seen_before = {key for epoch in (1, 2) for key in keys_of_epoch(0, epoch)}
    new = [len(set(keys_of_epoch(1, 1)) - seen_before)]
    new.append(len(set(keys_of_epoch(1, 2)) - seen_before - set(keys_of_epoch(1, 1))))
    assert sum(asked) - asked.count(1) - asked.count(2) * 2 <= sum(new) <= sum(asked)
    assert table_files("keys")[0].stat().st_size == 16 * len(seen_before | {*keys_of_epoch(1, 1), *keys_of_epoch(1, 2)})


def keys_of_epoch(seed, epoch):
    recipe = parse_recipe("crop flip")
    plan = plan_epoch(recipe, IMAGES, 32, 1, seed, epoch)
    return view_numbers(recipe, plan.draws, torch.arange(len(plan.order)))[0, plan.order].tolist()


def test_another_seed_gets_the_live_teachers_word_to_the_last_digits(data, asked):
    teacher = load_teacher("teacher_resnet8_digits")
    for seed in (0, 1, 2):  # rows of earlier seeds among those computed now, in batches of other sizes
        batches = batches_of(data, seed=seed)
        with cached_teacher(teacher, data, batches, {"logits"}) as stored:
            for batch in batches.epoch(1):
                live, cached = teacher(batch.views[0]), stored(batch.views[0], view_ids=batch.view_ids[0])
                torch.testing.assert_close(cached.logits, live.logits, rtol=0, atol=1e-5)


def test_views_have_one_number_each_and_images_of_one_number_are_alike(data):
    recipe = parse_recipe("crop=1 flip")
    assert recipe.views == 18
    pictures = {}
    for epoch in range(1, 100):
        for batch in batches_of(data, "crop=1 flip", views=2).epoch(epoch):
            for view, keys in zip(batch.views, batch.view_ids, strict=True):
                for image, key, index in zip(view, keys.tolist(), batch.index.tolist(), strict=True):
                    assert key // 18 == index
                    assert torch.equal(pictures.setdefault(key, image), image)
    assert len(pictures) == IMAGES * 18


@pytest.mark.parametrize(("augmentation", "views"), [("none", 1), ("flip", 2), ("crop", 81), ("crop flip", VIEWS)])
def test_how_many_views_an_image_has(augmentation, views):
    recipe = parse_recipe(augmentation)
    assert recipe.views == views
    plan = plan_epoch(recipe, 5, 32, 1, 0, 1)
    assert view_numbers(recipe, plan.draws, torch.arange(5)).max() < 5 * views


@pytest.mark.parametrize("augmentation", ["crop flip jitter", "crop cutout", "resized_crop", "rotation", "randaugment"])
def test_beyond_counting_the_teacher_runs_live_and_it_is_said(data, asked, augmentation, capsys):
    live = train(data, stored=False, augmentation=augmentation, epochs=1)
    assert same(live, train(data, augmentation=augmentation, epochs=1))
    assert "the teacher runs live" in capsys.readouterr().err
    assert table_files("rows") == []


def test_feature_maps_come_from_the_live_teacher(data, asked, capsys):
    live = train(data, stored=False, method="hints", hyperparameters={"mode": "joint"})
    assert same(live, train(data, method="hints", hyperparameters={"mode": "joint"}))
    assert "reads maps of the teacher" in capsys.readouterr().err


def test_a_wider_table_serves_those_who_read_logits_alone(data, asked):
    train(data, method="crd", hyperparameters=SMALL["crd"])
    asked.clear()
    train(data)
    assert max(asked) <= 2
    assert len(table_files("rows")) == 1


def test_lockstep_and_single_runs_share_the_table(data, asked):
    runs = [Run(**TAUGHT, method=method, hyperparameters=SMALL.get(method, {})) for method in ("lm", "dkd", "crd")]
    live = [weights(fit(run, data, progress=Recorder())) for run in runs]
    fit_sweep(runs, data, progress=Recorder(), force_retrain=True, cache_teacher=True)
    asked.clear()
    again = fit_sweep(runs, data, progress=Recorder(), force_retrain=True, cache_teacher=True)
    assert max(asked) <= 2
    assert all(same(first, weights(second)) for first, second in zip(live, again, strict=True))


@pytest.mark.parametrize("change", ["recipe", "precision", "weights", "normalisation", "images"])
def test_what_the_rows_depend_on_makes_another_table(data, asked, change):
    train(data, epochs=1)
    if change == "weights":
        torch.manual_seed(5)
        network = load_model("teacher_resnet8_digits")
        network.conv1.weight.data.mul_(1.5)
        path = artifacts.weights_path("teacher_resnet8_digits")
        described = artifacts.load_json(path.with_suffix(".json"))
        artifacts.save_tensors(path, network.state_dict())
        artifacts.save_json(path.with_suffix(".json"), described | {"sha256": artifacts.sha256(path)})
    if change == "normalisation":
        data = dataclasses.replace(data, std=tuple(2 * each for each in data.std))
    if change == "images":
        data = dataclasses.replace(data, train=data.train.select(torch.arange(119, -1, -1)))
    changed = {"recipe": {"augmentation": "crop"}, "precision": {"precision": "bf16"}}.get(change, {})
    live = train(data, stored=False, epochs=1, **changed)
    assert same(live, train(data, epochs=1, **changed))
    assert len(table_files("rows")) == 2


@pytest.mark.parametrize("torn", ["rows", "keys"])
def test_a_half_written_table_is_believed_as_far_as_it_is_whole(data, asked, torn):
    live = train(data, stored=False)
    train(data)
    rows, keys = table_files("rows")[0], table_files("keys")[0]
    whole = rows.read_bytes(), keys.read_bytes()
    path, cut = (rows, 1003) if torn == "rows" else (keys, 101)
    path.write_bytes(path.read_bytes()[:-cut])
    again = train(data)  # the missing rows come from smaller batches, which some processors round otherwise
    assert max((live[name].float() - again[name].float()).abs().max() for name in live) < 1e-4
    assert len(keys.read_bytes()) == len(whole[1])
    assert rows.stat().st_size == len(whole[0])


@pytest.mark.parametrize(
    ("kind", "place", "byte"), [("keys", 7, 0xFF), ("keys", 8, 1), ("rows", 45, 1), ("rows", 0, 1)]
)
def test_a_damaged_table_is_refused(data, asked, kind, place, byte):
    train(data)
    content = bytearray(table_files(kind)[0].read_bytes())
    content[place] ^= byte
    table_files(kind)[0].write_bytes(content)
    with pytest.raises(ValueError, match=r"\.keys: damaged; delete it"):
        train(data)


def test_one_process_fills_a_table_the_others_read_it(data, asked, capsys):
    live = train(data, stored=False)
    train(data, epochs=1)
    before = table_files("rows")[0].read_bytes()
    with artifacts.lock(table_files("lock")[0], wait=False):
        asked.clear()
        assert same(live, train(data))
    assert "another process fills it" in capsys.readouterr().err
    assert IMAGES * 0.8 < sum(asked) - 2 * asked.count(2) - asked.count(1) <= IMAGES
    assert table_files("rows")[0].read_bytes() == before


def test_beyond_its_share_of_the_memory_the_teacher_is_asked_again(data, asked, monkeypatch):
    live = train(data, stored=False)
    width = 10 * 4
    monkeypatch.setattr(outputs, "free_memory", lambda device: 70 * width / outputs.MEMORY_SHARE)
    assert same(live, train(data))
    assert same(live, train(data))
    assert table_files("keys")[0].stat().st_size < 16 * 120


def test_the_table_grows_without_losing_a_row(tmp_path):
    stem = tmp_path / "table"
    table = TeacherCache(stem, 10_000, 3, torch.float32, torch.device("cpu"), writes=True)
    values = torch.randn(10_000, 3)
    order = torch.randperm(10_000)
    for keys in order.split(777):
        table.add(keys, values[keys])
        table.save()
    for found in (table, TeacherCache(stem, 10_000, 3, torch.float32, torch.device("cpu"), writes=False)):
        assert torch.equal(found.rows[found.row_of], values)

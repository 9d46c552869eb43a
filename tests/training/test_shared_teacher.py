"""The teacher of a loop: one forward for all students of a step, and for all steps of a block."""

import pytest
import torch

from kdhelpers import build_model
from kdhelpers.data import Batches, BatchSpec, parse_recipe
from kdhelpers.models import Outputs
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import CachedTeacher, cached_teacher

STEPS_OF_A_BLOCK = 3


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return Teacher(build_model("resnet8", 10).eval())


def batches_of(data, block_steps=STEPS_OF_A_BLOCK, **spec):
    return Batches(data, BatchSpec(parse_recipe("crop flip"), 16, **spec), block_steps=block_steps)


def test_a_teacher_runs_once_for_an_image_until_the_next_step():
    shared = SharedTeacher(lambda view, stop_at=None: Outputs(view.sum(), stop_at, {}))
    first, equal = torch.ones(2), torch.ones(2)
    assert shared(first) is shared(first)
    assert shared(first, stop_at="layer1") is shared(first, stop_at="layer1")
    assert shared(first)[1] is None
    assert shared(first, stop_at="layer1")[1] == "layer1"
    assert shared.forwards == 2
    first.add_(1)  # as a buffer that the next batch is written to
    shared.begin_batch(None)
    assert shared(first)[0] == 4
    assert shared(equal)[0] == 2
    assert shared.forwards == 4


@pytest.mark.parametrize("spec", [{"views": 2}, {"weak_view": "own_crop"}, {"weak_view": "shared_crop"}])
def test_outputs_of_a_block_are_the_outputs_of_its_steps(data, teacher, spec):
    shared, seen = SharedTeacher(teacher), 0
    for batch in batches_of(data, **spec).epoch(1):
        shared.begin_batch(batch)
        for view in (*batch.views, *([batch.weak_view] if batch.weak_view is not None else [])):
            expected, found = teacher(view), shared(view)
            torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-6)
            torch.testing.assert_close(found.embedding, expected.embedding, rtol=0, atol=1e-6)
        seen += 1
    assert seen == 8  # 120 images
    kinds = {"views": 2, "weak_view": 1 + (spec.get("weak_view") == "own_crop")}[next(iter(spec))]
    assert shared.forwards == 3 * kinds


def test_cached_outputs_of_a_block_are_the_live_ones_and_computed_once(data, teacher, root):
    batches = batches_of(data, views=2)
    with cached_teacher(teacher, data, batches, {"logits", "embedding"}) as source:
        assert isinstance(source, CachedTeacher)
        shared, live = SharedTeacher(source), SharedTeacher(teacher)
        for _ in range(2):
            for batch in batches.epoch(1):
                shared.begin_batch(batch)
                live.begin_batch(batch)
                for view in batch.views:
                    assert torch.equal(shared(view).logits, live(view).logits)
                    assert torch.equal(shared(view).embedding, live(view).embedding)
        assert source.forwards == 2 * 120  # two views of each image, in the first epoch alone


def test_a_gpu_computes_missing_rows_in_few_sizes(data, teacher, root, monkeypatch):
    """The chosen images are padded with the first one to a multiple of SIZE_STEP, and its outputs are dropped."""
    from kdhelpers.training import teacher_cache

    monkeypatch.setattr(teacher_cache, "SIZE_STEP", 8)
    sizes = []

    def counted(view, stop_at=None):
        sizes.append(len(view))
        return teacher(view, stop_at)

    batches = batches_of(data)
    batch = next(batches.epoch(1)).block
    with cached_teacher(teacher, data, batches, {"logits"}) as source:
        source.teacher = counted
        source(batch.views[0][:5], view_ids=batch.view_ids[0][:5])
        source.pads = True
        found = source(batch.views[0], view_ids=batch.view_ids[0])
    assert sizes == [5, 48]  # 43 are missing: 48, the size of the block, is the next multiple of 8
    torch.testing.assert_close(found.logits, teacher(batch.views[0]).logits, rtol=0, atol=1e-6)


def test_feature_maps_are_computed_step_by_step(data, teacher):
    shared = SharedTeacher(teacher, read={"logits", "feature_maps"})
    for batch in batches_of(data).epoch(1):
        shared.begin_batch(batch)
        maps, expected = shared(batch.views[0]).feature_maps, teacher(batch.views[0]).feature_maps
        assert all(torch.equal(maps[name], expected[name]) for name in expected)
    assert shared.forwards == 8


def test_a_map_that_no_method_declares_is_refused_with_the_remedy(data, teacher):
    shared, batch = SharedTeacher(teacher), next(batches_of(data).epoch(1))
    shared.begin_batch(batch)
    with pytest.raises(KeyError, match="add 'feature_maps' to the method's `reads`"):
        shared(batch.views[0]).feature_maps["layer1"]


def test_maps_that_are_not_read_are_dropped_and_pre_activations_are_carried(data):
    torch.manual_seed(0)
    teacher, batch = Teacher(build_model("resnet8", 10), pre_activations=True), next(batches_of(data).epoch(1))
    read = {"final_map", "pre_activations"}
    for parts in (set(), read):
        shared = SharedTeacher(teacher, {"logits"} | parts)
        shared.begin_batch(batch)
        outputs, live = shared(batch.views[0]), teacher(batch.views[0])
        assert shared.by_block == (not parts)
        assert not outputs.feature_maps
        assert (outputs.final_map is None) == (outputs.pre_activations is None) == (not parts)
    assert torch.equal(outputs.final_map, live.final_map)
    assert all(torch.equal(value, live.pre_activations[name]) for name, value in outputs.pre_activations.items())

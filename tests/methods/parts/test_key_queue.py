"""The queue of keys against a deque: wrap-around, batches of any size, in place."""

from collections import deque

import pytest
import torch

from kdhelpers.methods.parts.key_queue import KeyQueue

SIZE, DIM = 7, 3


def queue(size=SIZE):
    torch.manual_seed(0)
    return KeyQueue(size, DIM)


def oldest_first(store):
    return store.keys.roll(-int(store.oldest), 0)


@pytest.mark.parametrize("batches", [[3, 3, 3, 3, 3], [7, 7], [1] * 9, [2, 5, 4, 6, 1], [8, 3], [20, 2, 15, 14]])
def test_it_holds_the_latest_keys_as_a_deque_does(batches):
    store = queue()
    model = deque(store.keys.clone(), maxlen=SIZE)
    for size in batches:
        keys = torch.randn(size, DIM)
        store.enqueue(keys)
        model.extend(keys)
        assert torch.equal(oldest_first(store), torch.stack(list(model)))


def test_a_queue_of_one_key_keeps_the_last():
    store, keys = queue(1), torch.randn(4, DIM)
    store.enqueue(keys)
    assert torch.equal(store.keys, keys[-1:])


def test_rows_are_random_and_of_unit_length_at_first():
    keys = queue(500).keys
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(500))
    assert keys.mean(0).abs().max() < 0.1


def test_it_is_written_in_place_in_float32_and_keeps_no_graph():
    store, head = queue(), torch.nn.Linear(DIM, DIM)
    place, pointer = store.keys.data_ptr(), store.oldest.data_ptr()
    keys = head(torch.randn(2, DIM)).bfloat16()
    store.enqueue(keys)
    assert (store.keys.data_ptr(), store.oldest.data_ptr()) == (place, pointer)
    assert store.keys.dtype is torch.float32
    assert not store.keys.requires_grad
    assert torch.equal(store.keys[:2], keys.float().detach())


def test_a_checkpoint_holds_keys_and_place():
    store, other = queue(), KeyQueue(SIZE, DIM)
    store.enqueue(torch.randn(5, DIM))
    assert set(store.state_dict()) == {"keys", "oldest"}
    other.load_state_dict(store.state_dict())
    keys = torch.randn(4, DIM)
    for one in (store, other):
        one.enqueue(keys)
    assert torch.equal(store.keys, other.keys)
    assert torch.equal(store.oldest, other.oldest)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu():
    store, keys = queue().cuda(), torch.randn(9, DIM, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        store.enqueue(keys)
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Two processes as one: banks and queues stay equal, and a contrast over ranks has the whole batch's gradient."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F

from kdhelpers.data import Batch
from kdhelpers.methods import METHODS, info_nce_loss
from kdhelpers.methods.parts.distributed import gather, mean_over_ranks
from kdhelpers.methods.parts.key_queue import KeyQueue
from kdhelpers.methods.parts.memory_bank import MemoryBank
from kdhelpers.models import Outputs

LABELS, BATCH = torch.arange(12) % 3, 6


def problem():
    """A linear head and a batch: the same on every rank."""
    torch.manual_seed(0)
    return torch.nn.Linear(5, 4), torch.randn(BATCH, 5), F.normalize(torch.randn(BATCH, 4), dim=1)


def contrast(head, images, teacher):
    """The in-batch method itself, with `head` for its student's and the teacher's embedding as it is."""
    method = METHODS["crd_inbatch"](temperature=0.5, ce_weight=0.0, contrast_weight=3.0)
    method.student_head, method.teacher_head = torch.nn.Identity(), torch.nn.Identity()
    student_out = Outputs(torch.zeros(len(images), 3), F.normalize(head(images), dim=1), {})
    teacher_out = Outputs(None, teacher, {})
    batch = Batch((None,), LABELS[: len(images)], None, {})
    return method(lambda view: student_out, lambda view: teacher_out, batch, 1)["contrast"]


def supervised_contrast(head, images, labels):
    """ConKD's contrast alone, of two views: each image, and the same with its numbers moved on by one."""
    method = METHODS["conkd"](alpha=3.0, kd_weight=0.0, contrast_temperature=0.5)
    method.head = torch.nn.Identity()
    embeddings = F.normalize(head(torch.cat([images, images.roll(1, 1)])), dim=1).chunk(2)
    batch = Batch((0, 1), labels, None, {})
    return method(lambda view: Outputs(None, embeddings[view], {}), None, batch, 1)["supcon"]


def rank(number, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    head, images, teacher = problem()
    bank, queue = MemoryBank(LABELS, 3, 4, 4), KeyQueue(8, 4)
    rows = slice(number, None, 2)
    joint = torch.nn.parallel.DistributedDataParallel(head)
    contrast(joint, images[rows], teacher[rows]).backward()
    other = torch.nn.parallel.DistributedDataParallel(problem()[0])
    supervised_contrast(other, images[rows], LABELS[:BATCH][rows]).backward()
    bank.update(torch.arange(BATCH)[rows], teacher[rows], teacher[rows], 0.5)
    for _ in range(2):
        queue.enqueue(teacher[rows])
    facts = {
        "grad": head.weight.grad,
        "supervised": other.module.weight.grad,
        "bank": bank.student,
        "queue": queue.keys,
        "oldest": queue.oldest,
        "mean": mean_over_ranks(torch.tensor(2.0 + number)),
    }
    torch.save(facts, f"{folder}/{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank, (folder,), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


def test_the_gradient_is_that_of_the_whole_batch(ranks):
    head, images, teacher = problem()
    contrast(head, images, teacher).backward()
    for state in ranks:
        torch.testing.assert_close(state["grad"], head.weight.grad)
    expected = torch.autograd.grad(info_nce_loss(F.normalize(head(images), dim=1), teacher, 0.5), head.weight)
    torch.testing.assert_close(head.weight.grad, 3 * expected[0])


def test_conkds_contrast_has_the_gradient_of_the_whole_batch_too(ranks):
    head, images, _ = problem()
    supervised_contrast(head, images, LABELS[:BATCH]).backward()
    for state in ranks:
        torch.testing.assert_close(state["supervised"], head.weight.grad)


def test_every_rank_has_every_update_of_the_banks(ranks):
    _, _, teacher = problem()
    bank = MemoryBank(LABELS, 3, 4, 4)
    bank.update(torch.arange(BATCH), teacher, teacher, 0.5)
    for state in ranks:
        torch.testing.assert_close(state["bank"], bank.student)


def test_queues_of_all_ranks_agree_and_hold_the_keys_of_all(ranks):
    _, _, teacher = problem()
    alone = KeyQueue(8, 4)
    for _ in range(2):
        alone.enqueue(teacher)
    for state in ranks:
        assert torch.equal(state["queue"], alone.keys)  # in the order of the whole batch
        assert state["oldest"] == alone.oldest == 4


def test_the_mean_is_over_ranks(ranks):
    assert [state["mean"].item() for state in ranks] == [2.5, 2.5]


def test_a_single_process_keeps_its_tensors():
    values = torch.arange(3.0)
    assert gather(values) is values
    assert mean_over_ranks(values) is values

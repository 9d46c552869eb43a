"""What each process of torchrun does first. A training by two processes is in tests/end_to_end/test_interruption.py."""

import pytest
import torch
import torch.distributed as dist

from kdhelpers.training import command


@pytest.fixture
def calls(monkeypatch):
    """The calls, in order, on a machine with two GPUs, in the second of two processes."""
    made = []
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(command, "pick_device", lambda: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(("set_device", device)))
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, timeout, device_id: made.append((backend, device_id))
    )
    return made


GPU = torch.device("cuda", 1)


def test_each_process_takes_its_own_gpu_before_nccl_starts(calls):
    command.join_processes()
    assert calls == [("set_device", GPU), ("nccl", GPU)]


def test_without_nccl_gloo_joins_the_gpus(calls, monkeypatch):
    """Windows."""
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    command.join_processes()
    assert calls == [("set_device", GPU), ("gloo", None)]


@pytest.mark.parametrize("available", [True, False])
def test_without_a_usable_gpu_gloo_joins_the_cpus(calls, monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * available)
    monkeypatch.setattr(command, "pick_device", lambda: torch.device("cpu"))
    command.join_processes()
    assert calls == [("gloo", None)]


def test_more_processes_than_gpus_are_refused_by_each_of_them(calls, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="nproc_per_node = 4: is more than the GPUs of this machine; choose 2"):
        command.join_processes()
    assert not calls

"""Steps as CUDA graphs: all but the capture itself. A recording of the dispatched operations stands for the graph."""

import contextlib
from unittest.mock import Mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_fixtures import QUICK

from kdhelpers import Run, build_model
from kdhelpers.display.progress import Progress
from kdhelpers.methods import METHODS
from kdhelpers.training import graphs
from kdhelpers.training.graphs import CaptureError, GraphedSteps, UsualSteps, steps_of
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of, train_epoch
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher

CPU = torch.device("cpu")
TAUGHT = QUICK | {
    "teacher": "resnet8",
    "augmentation": "crop=2 flip",
    "batch_size": 16,
}  # 8 steps, the last of 8 images
CHANGES = {
    "crd": {"hyperparameters": {"negatives": 60, "kd_weight": 1.0}},
    "hints": {"hyperparameters": {"hint_epochs": 1}, "selection": "last"},
    "lm_unlabelled": {"hyperparameters": {"unlabelled_weight": 0}},
    "cocord": {
        "hyperparameters": {"kd_weight": 1.0, "queue_size": 64, "hidden_dim": 32, "dim": 32, "predictor_dim": 16}
    },
    "supcon": {"selection": "last"},
    "supcrd": {"hyperparameters": {"lam": 0.5}},
    "mlkd": {"augmentation": "crop=2 flip cutout"},
    "dkd": {"hyperparameters": {"warmup_epochs": 2}},
}


class Recording(TorchDispatchMode):
    """Repeats operations with the very tensors and Python values of their first run, as a CUDA graph does.

    Unlike a graph it runs the operations while it records them: so the first replay does nothing.
    """

    def __init__(self, work):
        super().__init__()
        self.calls, self.replays = [], 0
        with self:
            work()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for operation, args, kwargs, result in self.calls if self.replays > 1 else ():
            for old, new in zip(tree_leaves(result), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class RecordingGpu:
    """In the place of `graphs.Cuda`: keeps recordings and the order of work, and fails at capture number `fails`."""

    def __init__(self, fails=None):
        self.captures, self.fails, self.recordings, self.order = 0, fails, [], []

    def stream(self):
        return object()

    def on(self, stream):
        self.order.append(("on", stream))
        return contextlib.nullcontext()

    def join(self, stream):
        self.order.append(("join", stream))

    def capture(self, work, earlier):
        self.captures += 1
        if self.captures == self.fails:
            raise CaptureError("RuntimeError: operation not permitted when stream is capturing")
        self.recordings.append(Recording(work))
        return self.recordings[-1]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("resnet8", 10).eval()


def students(runs, data, network, block_steps):
    read = {part for run in runs if run.teacher for part in run.build_method().reads}
    teacher = Teacher(network, pre_activations="pre_activations" in read)
    inputs = [Inputs(run, data, CPU, "fp32", teacher if run.teacher else None) for run in runs]
    batches = batches_of(inputs)
    batches._block_steps = block_steps
    shared = SharedTeacher(teacher, read)
    return [Training(each, batches, shared if each.teacher else None) for each in inputs], shared


def trained(runs, data, network, block_steps=1, gpu=None, epochs=2):
    trainings, shared = students(runs, data, network, block_steps)
    steps = GraphedSteps(shared, CPU, always=True, gpu=gpu) if gpu else UsualSteps(shared)
    for _ in range(epochs):
        seconds = train_epoch(trainings, Progress(), steps)
        for training in trainings:
            training.end_epoch(seconds)
    return trainings


def assert_close(first, second, atol=1e-6):
    for one, two in zip(first, second, strict=True):
        for name, value in one.network.state_dict().items():
            torch.testing.assert_close(two.network.state_dict()[name], value, rtol=1e-5, atol=atol)
        for part, value in one.method.state_dict().items():
            torch.testing.assert_close(two.method.state_dict()[part], value, rtol=1e-5, atol=atol)
        for usual, graphed in zip(one.history, two.history, strict=True):
            for name in ("loss", "train_top1_pct", "val_nll", "lr"):
                assert (graphed.get(name) or 0) == pytest.approx(usual.get(name) or 0, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_graphed_steps_train_the_student_of_the_usual_steps(data, network, method, optimizer):
    if optimizer != "sgd" and method not in ("lm", "crd", "hints"):
        pytest.skip("the optimiser does not depend on the method")
    changes = CHANGES.get(method, {}) | {"lr": 0.02 if optimizer == "sgd" else 1e-4, "optimizer": optimizer}
    run = Run(**TAUGHT | {"method": method} | changes | ({} if METHODS[method].needs_teacher else {"teacher": None}))
    gpu = RecordingGpu()
    graphed = trained([run], data, network, block_steps=3, gpu=gpu)
    assert gpu.captures >= 2, "each epoch has a graph of its own"
    # A graph reads the rate as a float32 tensor; AdamW and Lion turn a last digit of a tiny gradient into a whole step.
    assert_close(trained([run], data, network), graphed, atol=1e-6 if optimizer == "sgd" else 1e-5)


def test_students_in_lockstep_have_a_graph_each_and_share_the_teacher(data, network):
    runs = [
        Run(**TAUGHT, method="lm"),
        Run(**TAUGHT | {"teacher": None}),
        Run(**TAUGHT, method="supcrd", hyperparameters={"lam": 0.3}),
    ]
    gpu = RecordingGpu()
    graphed = trained(runs, data, network, block_steps=3, gpu=gpu)
    assert gpu.captures == 2 * 3
    assert_close(trained(runs, data, network), graphed)


def test_random_numbers_of_a_graphed_step_are_the_students_own(data, network):
    """Shake-Shake draws in its forward pass, CRD its negatives: no draw of one may move those of the other."""
    crd = Run(**TAUGHT, method="crd", hyperparameters={"negatives": 60})
    shake = Run(**TAUGHT | {"model": "shake_shake", "model_options": {"depth": 8, "base_channels": 8}}, method="lm")
    assert_close(trained([crd, shake], data, network), trained([crd, shake], data, network, 3, RecordingGpu()))


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_step_that_cannot_be_captured_runs_as_usual_and_no_step_is_lost(data, network, capsys, fails):
    runs = [Run(**TAUGHT, method="lm"), Run(**TAUGHT, method="dkd")]
    graphed = trained(runs, data, network, 3, RecordingGpu(fails))
    assert_close(trained(runs, data, network), graphed)
    assert "CUDA graphs: RuntimeError: operation not permitted" in capsys.readouterr().err


def test_the_teacher_of_a_method_that_reads_maps_has_a_graph_of_its_own(data, network):
    run, gpu = Run(**TAUGHT, method="hints", **CHANGES["hints"]), RecordingGpu()
    trained([run], data, network, 3, gpu)
    assert gpu.captures == 2 + 2  # of the student in both epochs; of the teacher up to the hint's map, and as a whole
    convolutions = [sum("convolution" in str(call[0]) for call in recording.calls) for recording in gpu.recordings]
    whole = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert convolutions[2] == whole, "of the second epoch: the hint's map is not computed any more"
    assert convolutions[0] < whole


def test_a_student_waits_for_the_outputs_that_another_is_the_first_to_compute(data, network):
    gpu = RecordingGpu()
    trained([Run(**TAUGHT, method="lm"), Run(**TAUGHT, method="dkd")], data, network, 3, gpu)
    first, second = [stream for what, stream in gpu.order if what == "on"][:2]
    assert gpu.order[:3] == [("on", first), ("join", first), ("on", second)]
    assert first is not second


@pytest.mark.parametrize("block_steps", [1, 3])
@pytest.mark.parametrize("method", ["lm", "hints"])
def test_a_teacher_of_a_graphed_step_runs_under_the_autocast_of_a_usual_step(data, network, block_steps, method):
    run, modes = Run(**TAUGHT, method=method, **CHANGES.get(method, {})), []

    class Watched(Teacher):
        def __call__(self, view, stop_at=None):
            modes.append(torch.is_autocast_enabled("cpu"))
            return super().__call__(view, stop_at)

    inputs = Inputs(run, data, CPU, "bf16", Watched(network, dtype=torch.bfloat16))
    batches, shared = batches_of([inputs]), SharedTeacher(inputs.teacher, METHODS[method].reads)
    batches._block_steps, training = block_steps, Training(inputs, batches, shared)
    modes.clear()
    train_epoch([training], Progress(), GraphedSteps(shared, CPU, always=True, gpu=RecordingGpu()))
    assert all(modes)
    assert len(modes) > 2


def test_what_ends_a_capture_leaves_no_stream_in_it(monkeypatch):
    ended = []

    class Graph:
        def capture_begin(self, pool, capture_error_mode):
            pass

        def capture_end(self):
            ended.append("capture")
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *pool: ended.append(pool), raising=False)
    for error, raised in ((KeyboardInterrupt(), KeyboardInterrupt), (RuntimeError("waits"), CaptureError)):
        with pytest.raises(raised):
            graphs.Cuda(torch.device("cuda")).capture(Mock(side_effect=error), None)
        assert ended == ["capture", (0, (0, 7))]
        ended.clear()


@pytest.mark.parametrize(("share", "pays"), [(0.9, True), (0.3, False)])
def test_a_measurement_of_the_third_step_decides(data, network, monkeypatch, capsys, share, pays):
    trainings, shared = students([Run(**TAUGHT, method="lm")], data, network, 3)
    times = iter([0.0, share, 1.0])  # at the start, after the launch, and when the GPU has done the work
    monkeypatch.setattr(graphs.time, "perf_counter", lambda: next(times))
    gpu = RecordingGpu()
    steps = GraphedSteps(shared, CPU, gpu=gpu)
    for training in trainings:
        training.begin_epoch()
    for batch in trainings[0].batches.epoch(1):
        steps(trainings, batch)
    assert gpu.captures == pays
    assert ("the GPU takes longer for a step than its launch" in capsys.readouterr().err) != pays
    assert trainings[0].log.sizes == [16] * 7 + [8]


def test_who_gets_graphs(monkeypatch, capsys):
    gpu = torch.device("cuda")
    assert type(steps_of(CPU, None, None, False)) is UsualSteps
    assert type(steps_of(gpu, None, False, False)) is UsualSteps
    assert type(steps_of(gpu, None, None, False)) is GraphedSteps
    assert type(steps_of(gpu, None, None, True)) is UsualSteps
    monkeypatch.setattr(graphs.dist, "is_initialized", lambda: True)
    assert type(steps_of(gpu, None, None, False)) is UsualSteps
    assert capsys.readouterr().err.splitlines() == [
        "CUDA graphs: not with torch.compile; the steps run as usual",
        "CUDA graphs: not with torchrun; the steps run as usual",
    ]

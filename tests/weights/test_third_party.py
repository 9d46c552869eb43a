"""Checkpoints made elsewhere: the tensors are read; no class or function of the pickle is imported or called."""

import argparse
import os
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from kdhelpers import load_model
from kdhelpers.models import build_model
from kdhelpers.training.teacher import load_teacher
from kdhelpers.weights.load import find_weights, start_from
from kdhelpers.weights.safe_pickle import SafeCheckpoint, Unreadable
from kdhelpers.weights.third_party import load_state

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def save(path, value, legacy=False):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def network():
    torch.manual_seed(0)
    return build_model("resnet8", 7).eval()


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def checkpoint():
    """The content that the CRD benchmark's training loop saves, and more kinds of objects."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    return model, {
        "epoch": 240,
        "model": model.state_dict(),
        "best_acc": np.float64(72.5),
        "accuracy": np.float32(72.0),
        "optimizer": optimizer.state_dict(),
        "losses": defaultdict(list, {"kd": [1.0, 0.5]}),
        "opt": argparse.Namespace(model="resnet8", lr=0.1, device=torch.device("cpu")),
    }


@FORMATS
def test_a_checkpoint_of_the_benchmark_is_read_with_any_objects_next_to_the_weights(root, checkpoint, legacy, capsys):
    model, content = checkpoint
    path = save(root / "resnet110_vanilla.pth", content, legacy)  # the name does not give the architecture
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model(str(path))(images), model(images))
    report = capsys.readouterr().err
    assert "taken from model; left: epoch, best_acc, accuracy, optimizer, losses, opt; pickled objects that" in report
    assert "argparse.Namespace" in report
    assert "its tensors fit resnet8, 7 classes" in report


@FORMATS
def test_safe_reading_gives_the_same_tensors_as_torch(root, legacy):
    base = torch.randn(6, 8)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    state = {str(dtype): base.mul(9).to(dtype) for dtype in (*dtypes, torch.bool)}
    state |= {"byte": torch.arange(5, dtype=torch.uint8), "none": torch.zeros(0, 3), "scalar": torch.tensor(3)}
    state |= {"turned": base.t(), "part": base[2:, 1:7:2], "parameter": nn.Parameter(torch.randn(3)), "tied": base}
    path = save(root / "x.pth", {"net": state, "opt": argparse.Namespace()}, legacy)
    loaded = load_state(path)
    assert same(loaded, state)
    assert all(loaded[key].dtype == value.dtype for key, value in state.items())
    loaded["tied"].zero_()  # owns its memory, and may be written
    assert loaded["turned"].any()


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, "taken from state_dict; left: epoch"),
        (lambda state: {"model": "resnet8", "model_state_dict": state}, "from model_state_dict; left: model"),
        (lambda state: {"net": {"state_dict": state}, "acc": 1}, "taken from net.state_dict; left: acc"),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "their prefix module. removed"),
        (
            lambda state: {"net": {f"module._orig_mod.{key}": value for key, value in state.items()}},
            "taken from net, their prefix module._orig_mod. removed",
        ),
    ],
)
def test_wrappers_and_prefixes_are_removed_and_reported(root, wrap, message, capsys):
    state = network().state_dict()
    assert same(load_state(save(root / "x.pth", wrap(state))), state)
    assert message in capsys.readouterr().err


def test_a_plain_state_dict_is_read_without_a_report(root, capsys):
    state = network().state_dict()
    assert same(load_state(save(root / "x.pth", state)), state)
    assert capsys.readouterr().err == ""


@FORMATS
def test_batchnorm_counts_may_be_absent_and_the_architecture_given(root, legacy):
    model = network()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    path = save(root / "old.pth", {"model": state, "accuracy": np.float64(70)}, legacy)
    for given in ({}, {"model": "resnet8", "num_classes": 7}):
        assert torch.equal(load_model(str(path), **given).fc.weight, model.fc.weight)
    with pytest.raises(ValueError, match="another architecture: lacks layer1.1.conv1.weight"):
        load_model(str(path), model="resnet14", num_classes=7)


def test_a_third_party_checkpoint_serves_as_teacher_and_as_initial_weights(root, checkpoint):
    model, content = checkpoint
    path = save(root / "x.pth", content)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_teacher(str(path))(images).logits, model(images), rtol=1e-4, atol=1e-4)
    untrained = build_model("resnet8", 7)
    start_from(untrained, find_weights(str(path)))
    assert torch.equal(untrained.fc.weight, model.fc.weight)


class Evil:
    """Pickles as a call of `function`, with `state` for what is built, so that loading it runs code."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


EVIL = [
    (lambda: Evil(os.system, "touch evil_was_here"), "posix.system" if os.name == "posix" else "nt.system"),
    (lambda: Evil(eval, "open('evil_was_here', 'w')"), "__builtin__.eval"),
    (lambda: Evil(open, "evil_was_here", "w"), "io.open"),
    (lambda: Evil(getattr, Evil(__import__, "os"), "system"), "__builtin__.__import__"),
    (lambda: Evil(torch.hub.load, "evil", "evil"), "torch.hub.load"),
    (lambda: Evil(OrderedDict, state={"path": Evil(os.system, "touch evil_was_here")}), "system"),
]


@FORMATS
@pytest.mark.parametrize(("evil", "named"), EVIL, ids=[named for _, named in EVIL])
def test_code_in_a_pickle_does_not_run_next_to_or_among_the_weights(root, monkeypatch, evil, named, legacy, capsys):
    monkeypatch.chdir(root)
    model = network()
    path = save(root / "evil.pth", {"model": model.state_dict(), "opt": evil()}, legacy)
    assert torch.equal(load_model(str(path)).fc.weight, model.fc.weight)
    assert named in capsys.readouterr().err
    save(path, {"model": {**model.state_dict(), "fc.weight": evil()}}, legacy)
    with pytest.raises(ValueError, match="evil.pth: not a state_dict of tensors.*save the network's state_dict"):
        load_model(str(path))
    assert not os.path.exists("evil_was_here")


@FORMATS
def test_nothing_named_is_imported(root, monkeypatch, legacy):
    (root / "intruder.py").write_text("class Net:\n    pass\n")
    monkeypatch.syspath_prepend(root)
    import intruder

    path = save(root / "x.pth", {"net": network().state_dict(), "opt": intruder.Net()}, legacy)
    alone = save(root / "alone.pth", intruder.Net(), legacy)
    del sys.modules["intruder"]
    assert len(load_state(path)) == 56
    with pytest.raises(ValueError, match=r"alone.pth: not a state_dict.*it holds intruder.Net; save"):
        load_state(alone)
    assert "intruder" not in sys.modules


@FORMATS
def test_a_pickled_network_is_refused_with_the_remedy(root, legacy):
    with pytest.raises(ValueError, match=r"it holds net \(torch.nn.modules.linear.Linear\), epoch; save the network's"):
        load_state(save(root / "x.pth", {"net": nn.Linear(2, 2), "epoch": 1}, legacy))
    with pytest.raises(ValueError, match="it holds torch.nn.modules.linear.Linear; save the network's"):
        load_state(save(root / "x.pth", nn.Linear(2, 2), legacy))


def zipped(path, pickled):
    """A torch file of that pickle, without storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/version", "3\n")
    return path


def written(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def text(word):
    return pickle.BINUNICODE + len(word).to_bytes(4, "little") + word.encode()


@pytest.mark.parametrize("build", [b"}%ss", b"N}%ss\x86"], ids=["dict", "slots"])
def test_a_pickle_cannot_alter_what_it_names(root, build):
    """BUILD on a class or a function itself would write into its __dict__, or call setattr on it."""
    for name in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n"):
        state = build % (text("__defaults__") + text("evil"))
        path = zipped(root / "x.pth", written(name, state, b"b"))
        with pytest.raises(ValueError, match="x.pth: holds pickled objects|x.pth: damaged|not a state_dict"):
            load_state(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def test_python_2_pickles_a_dict_with_its_items_as_argument(root):
    class Old:
        def __reduce__(self):
            return OrderedDict, ([["a", torch.ones(2)]],)

    path = save(root / "x.pth", {"net": Old(), "opt": argparse.Namespace()})
    assert same(load_state(path), {"a": torch.ones(2)})


@FORMATS
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)),
        (1, (8,), (1,)),
        (-1, (2,), (1,)),
        (0, (10**12,), (0,)),
        (0, (2, 2), (2**63, 2**63)),
        (0, (-1,), (1,)),
        (0, (2,), (1, 1)),
        (0, "ab", (1,)),
        ("0", (2,), (1,)),
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(root, offset, size, stride, legacy):
    with warnings.catch_warnings(action="ignore"):  # a storage with a type is what files name
        storage = torch.arange(8.0).storage()
    forged = Evil(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    path = save(root / "x.pth", {"net": {"a": forged}, "opt": argparse.Namespace()}, legacy)
    with pytest.raises(ValueError, match="x.pth: damaged .*delete it and get it again"):
        load_state(path)


@FORMATS
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_named(root, checkpoint, share, legacy):
    path = save(root / "x.pth", checkpoint[1], legacy)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="x.pth: (damaged|holds pickled objects|is an empty file)"):
        load_model(str(path))


def test_no_damage_crashes_or_passes_for_other_weights(root, checkpoint):
    """A flipped byte in the pickle is an error or a change elsewhere, never another kind of exception."""
    path = save(root / "x.pth", checkpoint[1], legacy=True)
    whole, random = path.read_bytes(), np.random.RandomState(0)
    for place in random.randint(0, 8000, 60):
        content = bytearray(whole)
        content[place] ^= 1 << random.randint(8)
        path.write_bytes(content)
        try:
            state = load_state(path)
        except ValueError as error:
            assert "x.pth: " in str(error)  # noqa: PT017
        else:
            assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_big_endian_and_compressed_files_are_refused(root, checkpoint):
    path = save(root / "x.pth", checkpoint[1])
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for changed, how, message in (({"x/byteorder": b"big"}, 0, "big-endian"), ({}, zipfile.ZIP_DEFLATED, "compressed")):
        with zipfile.ZipFile(path, "w", how) as archive:
            for member, content in (members | changed).items():
                archive.writestr(member, content)
        with pytest.raises(Unreadable, match=message):
            SafeCheckpoint(path)


def test_a_choice_between_networks_is_left_to_the_user(root):
    state = network().state_dict()
    with pytest.raises(ValueError, match="x.pth: several networks, under model, net; save one of them alone"):
        load_state(save(root / "x.pth", {"model": state, "net": state}))


def test_a_dict_within_itself_ends(root):
    inside = {}
    inside["model"] = inside
    with pytest.raises(ValueError, match="not a state_dict of tensors"):
        load_state(save(root / "x.pth", inside))


def test_names_in_a_file_cannot_send_escape_codes_to_the_terminal(root, capsys):
    load_state(save(root / "x.pth", {"net": {"a": torch.ones(1)}, "\x1b[2Jgone": 1}))
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.zeros(1).expand(2**33, 64), "of fewer stored numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "sparse, complex"),
        (torch.zeros(2, 2).to_sparse(), "sparse, complex"),
        (torch.zeros(2, 2, device="meta"), "sparse, complex"),
    ],
    ids=["expanded", "complex", "sparse", "meta"],
)
def test_tensors_that_are_not_weights_are_refused_before_a_network_is_built(root, tensor, fault):
    torch.save({"fc.weight": tensor}, root / "x.pth")
    with pytest.raises(ValueError, match=f"x.pth: fc.weight is .*{fault}"):
        load_model(str(root / "x.pth"))


def test_a_compressed_file_is_refused_before_it_is_inflated(root):
    torch.save({"weight": torch.zeros(1000)}, root / "x.pth")
    with zipfile.ZipFile(root / "x.pth") as plain, zipfile.ZipFile(root / "y.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    with pytest.raises(ValueError, match="y.pth: damaged or not a torch file: compressed"):
        load_model(str(root / "y.pth"))

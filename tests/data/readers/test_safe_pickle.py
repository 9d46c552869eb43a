"""Restricted unpickling: what passes, and that nothing else is called, however the pickle is forged."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

from kdhelpers.data import restricted_load
from kdhelpers.data.readers import safe_pickle as pickles
from kdhelpers.weights import safe_pickle


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was-here",)


class Codec:
    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("cafe", "hex")


@pytest.mark.parametrize("value", [Evil(), [{"a": Evil()}], Codec(), np.array([Evil()], dtype=object), torch.zeros(1)])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match="pickle refers to"):
        restricted_load(file)
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_pass_in_every_protocol(tmp_path, protocol):
    value = {
        "a": np.arange(6).reshape(2, 3),
        b"b": [1, 2.5, None, True],
        "c": (b"\xff\x00", {3}),
        "d": np.float32(2),
        "e": b"",
    }
    file = tmp_path / "good"
    file.write_bytes(pickle.dumps(value, protocol=protocol))
    found = restricted_load(file)
    assert np.array_equal(found.pop("a"), value.pop("a"))
    assert found == value


def test_a_damaged_pickle_says_so(tmp_path):
    file = tmp_path / "half"
    file.write_bytes(pickle.dumps(list(range(1000)))[:-50])
    with pytest.raises(ValueError, match="half: is not a pickle, or is damaged"):
        restricted_load(file)


ARRAYS = {
    "big-endian": np.arange(6, dtype=">i2"),
    "Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "texts": np.array([["a", "bcd"]]),
    "bytes": np.array([b"a", b"bcd"]),
    "empty": np.zeros((0, 3), np.uint8),
    "one number": np.array(5),
    "objects": np.array([[1, "x"], [None, 2.5]], dtype=object),
    "booleans": np.array([True, False]),
    "permuted": np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2).transpose(0, 2, 3, 1),
    "objects in Fortran's order": np.asfortranarray(np.array([["a", 2], [None, "d"]], dtype=object)),
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_kind_come_back_as_they_were(tmp_path, name, protocol):
    array, file = ARRAYS[name], tmp_path / "array"
    file.write_bytes(pickle.dumps([array, array], protocol))
    first, second = restricted_load(file)
    assert (first.dtype, first.shape) == (array.dtype, array.shape)
    assert np.array_equal(first, array)
    assert first.flags.writeable
    assert first is second  # it stands there twice, and is made once


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def those(*values):
    return b"(" + b"".join(values) + b"t"


def call(name, *arguments):
    module, function = name.rsplit(".", 1)
    return f"c{module}\n{function}\n".encode() + those(*arguments) + b"R"


POINTER = b"C\x08" + b"A" * 8  # eight bytes that numpy would follow as an address
OBJECTS = call("numpy.dtype", text("O"))
ONE, NONE = those(number(1)), b"N"
FIELDS = those(text("a")) + b"}" + text("a") + those(OBJECTS, number(0)) + b"s"
STATE = those(number(3), text("|"), NONE, FIELDS, number(8), number(1), number(0))  # its flags deny the objects
VOID = call("numpy.dtype", text("V8")) + STATE + b"b"
EMPTY = call("numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\n", those(number(0)), text("b"))
LONG = call("numpy.dtype", text("S8")) + those(
    number(3), text("|"), NONE, NONE, NONE, number(8000), number(1), number(0)
)
BYTE = call("numpy.dtype", text("u1"))

BUFFER = "numpy.core.numeric._frombuffer"
SCALAR = "numpy.core.multiarray.scalar"
UNCALLED = "a class or dtype replaces a value"
DTYPE = "pickle has an array of dtype 'V8'"
LIST = "an array of objects needs a list of the same length"
SIZE = "the bytes of an array do not fit its shape"
FORGED = {
    "array of objects over bytes": (call("numpy.ndarray", ONE, OBJECTS, POINTER), UNCALLED),
    "the same by protocol 5": (call(BUFFER, POINTER, OBJECTS, ONE, text("C")), LIST),
    "an object as a scalar": (call(SCALAR, OBJECTS, POINTER), LIST),
    "fields of objects, which the flags deny": (call(SCALAR, VOID, POINTER), DTYPE),
    "the same in an array's state": (EMPTY + those(number(1), ONE, VOID, b"\x89", POINTER) + b"b", DTYPE),
    "objects in an array's state": (EMPTY + those(number(1), ONE, OBJECTS, b"\x89", POINTER) + b"b", LIST),
    "memory that was never written": (call("numpy.ndarray", ONE, text("i8")), UNCALLED),
    "an array that is never filled": (EMPTY, "not enough values to unpack"),
    "fewer bytes than the shape says": (call(BUFFER, POINTER, BYTE, those(number(2**40)), text("C")), SIZE),
    "a number for the bytes": (EMPTY + those(number(1), those(number(9)), BYTE, b"\x89", number(9)) + b"b", SIZE),
    "strides of 0": (call("numpy.ndarray", those(number(2**40)), text("u1"), POINTER), UNCALLED),
    "a shape below 0": (
        EMPTY + those(number(1), those(number(-8)), BYTE, b"\x89", POINTER) + b"b",
        "the shape of an arr",
    ),
    "a size in the state of a dtype": (call(BUFFER, POINTER, LONG + b"b", those(number(2)), text("C")), SIZE),
    "a dtype by other words": (
        call(SCALAR, call("numpy.dtype", b"]" + those(text("a"), text("O")) + b"a"), POINTER),
        "expected string",
    ),
    "a dtype that goes on": (call(SCALAR, call("numpy.dtype", text("u1,O")), POINTER), "pickle has an array of dtype"),
    "no character": (
        call(BUFFER, b"C\x08" + b"\xff" * 8, call("numpy.dtype", text("U2")), ONE, text("C")),
        "a text contains an invalid character",
    ),
    "a bytearray of zeros": (call("builtins.bytearray", number(2**27)), "pickle makes bytes from int"),
    "bytes of zeros": (call("builtins.bytes", number(2**27)), "pickle makes bytes from int"),
    "a bytearray longer than the file": (b"\x96" + (2**40).to_bytes(8, "little"), "the file is truncated"),
    "billions of memos": (b"N" + b"r\xff\xff\xff\x7f" + b"0", "pop from empty list"),
    "a class in place of a value": (b"cnumpy\ndtype\n", "a class or dtype replaces"),
    "an attribute of a class": (
        b"cnumpy\ndtype\n" + those(NONE, b"}" + text("order") + text("V") + b"s") + b"b",
        "pickle changes an object",
    ),
    "defaults of a function": (
        b"cbuiltins\nbytes\n"
        + those(NONE, b"}" + text("__defaults__") + those(b"C\x04EVIL", text("latin1")) + b"s")
        + b"b0N",
        "pickle changes an object",
    ),
    "a list in itself": (b"]q\x000h\x00h\x00a", "recursion"),
    "a key nested a million deep": (b"}N" + b"\x85" * 1_000_000 + b"Ns", "unhashable"),
    "a registered extension": (b"\x82\x01", "registered extension"),
}
LOAD = """
import sys
from kdhelpers.data import restricted_load
for path in sys.argv[1:]:
    try:
        print("passed", restricted_load(path))
    except ValueError as error:
        print("refused", error)
"""


def test_a_forged_pickle_is_refused_and_neither_ends_the_process_nor_reads_other_memory(tmp_path):
    """In a process of its own, as one that numpy is talked into following a pointer in does not survive; the last file
    is a good one, which none before it may have spoilt."""
    for place, (content, _) in enumerate(FORGED.values()):
        (tmp_path / f"{place}.pkl").write_bytes(b"\x80\x03" + content + b".")
    (tmp_path / f"{len(FORGED)}.pkl").write_bytes(pickle.dumps([b"", np.uint8(3)], 2))
    files = [str(tmp_path / f"{place}.pkl") for place in range(len(FORGED) + 1)]
    done = subprocess.run([sys.executable, "-c", LOAD, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *refused, good = done.stdout.splitlines()
    assert good == "passed [b'', np.uint8(3)]"
    for (name, (_, reason)), said in zip(FORGED.items(), refused, strict=True):
        assert said.startswith("refused"), f"{name}: {said}"
        assert reason in said, name


def test_what_a_pickle_may_call_is_a_handful_of_placeholders():
    expected = {
        "numpy.dtype",
        "numpy.ndarray",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.numeric._frombuffer",
        "numpy._core.multiarray.scalar",
        "_codecs.encode",
        "collections.OrderedDict",
        "builtins.set",
        "builtins.frozenset",
        "builtins.complex",
        "builtins.bytes",
        "builtins.bytearray",
    }
    assert expected == pickles.ALLOWED
    unpickler = pickles._Unpickler(io.BytesIO())
    for path in pickles.ALLOWED:
        kind = unpickler.find_class(*path.rsplit(".", 1))
        assert kind.__module__ in (safe_pickle.__name__, pickles.__name__)
        assert issubclass(kind, dict if path == "collections.OrderedDict" else safe_pickle.Placeholder)
    assert pickle._Unpickler.dispatch[pickle.BUILD[0]] is pickle._Unpickler.load_build  # the original is left alone
    assert pickles._Unpickler.dispatch[pickle.BUILD[0]] is safe_pickle.SafeUnpickler.load_build
    assert pickles._Unpickler.dispatch[pickle.BYTEARRAY8[0]] is safe_pickle.SafeUnpickler.load_bytearray8


@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_every_kind_come_back(tmp_path, protocol):
    value = [OrderedDict(a=(1, (2, ()))), frozenset({1, 2}), 1 + 2j, {"x": (np.arange(2), "ü")}]
    file = tmp_path / "good"
    file.write_bytes(pickle.dumps(value, protocol))
    found = restricted_load(file)
    array, text = found.pop()["x"]
    assert (array.tolist(), text) == ([0, 1], "ü")
    assert found == [{"a": (1, (2, ()))}, *value[1:3]]
    assert type(found[0]["a"]) is tuple

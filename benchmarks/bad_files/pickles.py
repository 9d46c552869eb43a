"""Forged pickles and torch files: opcodes that would import or call, and torch's functions with odd arguments."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from random import Random

NAMES = [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("subprocess", "Popen"), ("kd_canary", "boom"), ("torch.hub", "load"), ("torch", "load"), ("numpy", "load"),
    ("numpy", "fromfile"), ("webbrowser", "open"),
    ("builtins", "open"), ("importlib", "import_module"), ("runpy", "run_path"), ("socket", "create_connection"),
    ("builtins", "bytearray"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"), ("torch._utils",
    "_rebuild_parameter"), ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_qtensor"), ("torch._utils", "_rebuild_meta_tensor_no_storage"), ("torch._utils",
    "_rebuild_wrapper_subclass"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"), ("torch._utils", "_rebuild_nested_tensor"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch", "device"), ("torch", "Size"), ("torch", "Tensor"), ("torch", "FloatStorage"), ("torch.storage",
    "_load_from_bytes"), ("torch.storage", "UntypedStorage"),
    ("torch.nn.parameter", "Parameter"), ("torch", "float32"), ("torch.serialization", "_get_layout"), ("torch.jit",
    "load"), ("collections", "OrderedDict"),
    ("collections", "Counter"), ("collections", "defaultdict"), ("numpy", "dtype"), ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"), ("_codecs", "encode"),
    ("numpy._core.multiarray", "scalar"), ("numpy.core.numeric", "_frombuffer"), ("builtins", "complex"), ("builtins",
    "set"), ("copyreg", "_reconstructor"),
]  # fmt: skip


def _global(name: tuple[str, str], random: Random) -> bytes:
    module, attribute = name
    if random.random() < 0.5:
        return f"c{module}\n{attribute}\n".encode()
    texts = [b"\x8c" + bytes([len(each)]) + each.encode() for each in name]
    return b"".join(texts) + b"\x93"


def _value(random: Random, depth: int = 3) -> bytes:
    """An object as opcodes."""
    kind = random.randrange(16 if depth else 9)
    if kind < 9:
        return random.choice((
            b"N", b"\x88", b"\x89", b"K\x01", b"K\x00", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\x00",
            b"\x8a\x09" + bytes(7) + b"\x40\x00",
            b"G\x7f\xf8" + bytes(6), b"X\x05\0\0\0touch", b"X\x0f\0\0\0touch kd_canary", b"C\x08AAAAAAAA",
            b"U\x03abc", b")", b"]", b"}", b"\x8f", b"h\x00", b"h\x05",
            b"\x8d" + b"\xff" * 7 + b"\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + b"\xff" * 6 + b"\0\0",
            b"B\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
            b"L" + b"9" * 5000 + b"L\n", b"I" + b"9" * 30 + b"\n", b"Fnan\n", b"S'a'\n", b"Vx\n", b"P1\n",
            b"\x82\x01", b"\x83\x01\x02", b"r\xff\xff\xff\x7f", b"\x94",
        ))  # fmt: skip
    if kind < 13:
        arguments = b"".join(_value(random, depth - 1) for _ in range(random.randint(0, 5)))
        call = random.choice((b"R", b"\x81", b"R", b"R"))
        body = _global(random.choice(NAMES), random) + b"(" + arguments + b"t" + call
        return body + (_value(random, depth - 1) + b"b" if random.random() < 0.3 else b"")
    if kind == 13:
        return b"(" + b"".join(_value(random, depth - 1) for _ in range(3)) + random.choice((b"l", b"t", b"d", b"\x91"))
    if kind == 14:
        key, count = b"X\x01\0\0\x000", random.choice((b"K\x04", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"N"))
        kind_of = b"ctorch\nFloatStorage\n"
        return b"(X\x07\0\0\0storage" + kind_of + key + b"X\x03\0\0\0cpu" + count + b"tQ"
    return random.choice(
        (
            b"(" * 3000 + b"t" * 3000,
            b"]" + b"]a" * 1,
            b"]\x94h\x00a",
            b"}" + _value(random, 0) * 2 + b"s",
            b"]" * 3000 + b"a" * 2999,
            b"2" * 50,
        )
    )


def forge_stream(random: Random, content: bytes) -> bytes:
    """A pickle with a forged object in place of all, or in a random place."""
    piece = _value(random)
    kind = random.randrange(4)
    if kind == 0:
        return b"\x80\x02" + piece + b"."
    if kind == 1:  # under a key of a dict, as weights are
        return b"\x80\x02}X\x06\0\0\0weight" + piece + b"sX\x04\0\0\0data" + _value(random) + b"s."
    place = random.randrange(2, max(3, len(content)))
    return content[:place] + piece + content[place + (len(piece) if kind == 2 else 0) :]


def forge_pickle(random: Random, _path: Path, content: bytes) -> bytes:
    return forge_stream(random, content)


def forge_torch(random: Random, _path: Path, content: bytes) -> bytes:
    """A torch file with a forged pickle, other members, or another compression."""
    if not content.startswith(b"PK"):
        return forge_stream(random, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    kind, pickled = random.randrange(6), next(name for name in members if name.endswith("data.pkl"))
    if kind < 4:
        members[pickled] = forge_stream(random, members[pickled])
    elif kind == 4:
        name = random.choice(list(members))
        members[random.choice((name, "../../outside/x", pickled.replace("data.pkl", "constants.pkl")))] = random.choice(
            (b"", b"big", bytes(9), pickle.dumps(0))
        )
    stream = io.BytesIO()
    how = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)) if kind == 5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return stream.getvalue()

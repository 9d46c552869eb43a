"""A file that was given as weights and is something else is named, with the remedy."""

import gzip
import io
import json
import tarfile
import zipfile

import pytest
import torch

from kdhelpers.models import build_model
from kdhelpers.weights.third_party import load_state


def weights():
    buffer = io.BytesIO()
    torch.save(build_model("resnet8", 10).state_dict(), buffer)
    return buffer.getvalue()


def tar(path, mode, names=("a/resnet56.pth", "a/vgg13.pth", "a/readme.md")):
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            content = weights() if name.endswith(".pth") else b"text"
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def zipped(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/resnet56.pth", weights())
        archive.writestr("a/vgg13.pth", weights())


def safetensors(path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


INSIDE = "is an archive with a/resnet56.pth, a/vgg13.pth inside; unpack it and name one of them"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: tar(path, "w"), INSIDE),
        (lambda path: tar(path, "w:gz"), INSIDE),
        (lambda path: tar(path, "w:xz"), INSIDE),
        (zipped, INSIDE),
        (lambda path: path.write_bytes(gzip.compress(weights())), "is one compressed file; unpack it"),
        (lambda path: tar(path, "w", ["a.md"]), "is an archive of 1 files, none of them a .pth"),
        (lambda path: tar(path, "w", ["\x1b[2J.pth"]), r"with \\x1b\[2J.pth inside"),
        (
            lambda path: path.write_text("\n<!DOCTYPE html><html>Quota exceeded"),
            "is a web page, not weights; download it",
        ),
        (lambda path: path.write_text('{"error": "quota"}'), "is the error message of a server, not weights"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path: path.write_bytes(b""), "is an empty file, not weights; copy or download it again"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "is an HDF5 file, as of Keras"),
        (safetensors, "is a safetensors file"),
        (lambda path: path.write_bytes(weights()[:-900]), "damaged"),
    ],
)
def test_what_it_is_and_what_to_do(tmp_path, make, says):
    make(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"x.pth: .*{says}") as caught:
        load_state(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert "delete it" not in str(caught.value) or says == "damaged"

"""Published teachers from a server on this machine: whole, resumed, from the mirror, refused; and the command."""

import hashlib
import io
import tarfile

import pytest
import torch
from click.testing import CliRunner
from serving import serving

from kdhelpers import artifacts, load_model
from kdhelpers.cli.commands import main
from kdhelpers.data import DATASETS, Data, Split
from kdhelpers.data.readers import download as download_module
from kdhelpers.models import build_model
from kdhelpers.weights.load import describe_teacher, find_weights
from kdhelpers.zoo import fetch as zoo

PLACE = f"/{zoo.FILES['resnet56']}/{zoo.CHECKPOINT}"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("resnet56", 100).eval()


@pytest.fixture(scope="module")
def content(network):
    file = io.BytesIO()
    torch.save({"epoch": 240, "model": network.state_dict(), "accuracy": torch.tensor(72.41)}, file)
    return file.getvalue()


@pytest.fixture
def server(root, network, content, monkeypatch):
    """The host, and images whose labels the network knows as often as is published: 72 of 100."""
    images = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    mean, std = DATASETS["cifar100"].statistics
    normal = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        labels = network(normal).argmax(1)
    labels[:28] = (labels[:28] + 1) % 100
    names = [str(number) for number in range(100)]
    split, none = Split(images, labels), Split(images[:0], labels[:0])
    data = Data("cifar100", split, none, split, names, None, None, mean, std)
    monkeypatch.setattr(zoo, "load_data", lambda name, val_fraction: data)
    with serving() as server:
        server.files = {PLACE: content}
        monkeypatch.setattr(zoo, "HOST", server.url)
        monkeypatch.setattr(zoo, "MIRROR", f"{server.url}/cifar_teachers.tar")
        yield server


def archive(content, name=f"cifar_teachers{PLACE}"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def run(*arguments):
    return CliRunner().invoke(main, ["teachers", *arguments])


def leftovers(root):
    return sorted(path.name for path in (root / "pth_models" / ".cache").glob("*") if path.suffix != ".lock")


def test_a_fetched_teacher_is_verified_and_found_by_its_architecture(server, root, network, content):
    result = run("resnet56")
    assert result.exit_code == 0, result.output
    record = artifacts.load_record("teacher_resnet56_cifar100")
    assert record["metrics"]["test_top1_pct"] == 72
    assert (record["run"]["epochs"], record["run"]["batch_size"], record["selection"]["rule"]) == (240, 64, "last")
    assert record["origin"]["source"] == server.url + PLACE
    assert record["origin"]["file_says"] == "epoch 240, accuracy 72.41"
    assert record["origin"]["published_top1_pct"] == 72.34
    assert record["origin"]["file_sha256"] in result.output
    assert "72.00 % of the 100 test images of cifar100; published 72.34 %, within 0.5 points" in result.output
    assert "not verified the sha256, as its authors publish none" in result.output
    assert describe_teacher("resnet56", "cifar100")["class_names"][-1] == "99"
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_model("teacher_resnet56_cifar100")(images), network(images))
    assert leftovers(root) == []


def test_a_stored_teacher_is_not_fetched_again(server):
    first = zoo.fetch("resnet56")
    server.files = {}
    assert zoo.fetch("resnet56") == first
    assert len(server.paths) == 1


def test_an_interrupted_download_goes_on(server, root, content, monkeypatch):
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    server.limit = len(content) // 2
    server.files["/cifar_teachers.tar"] = b""
    partial = root / "pth_models" / ".cache" / "resnet56_vanilla.pth.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content[:1000])
    zoo.fetch("resnet56")
    assert server.asked == ["bytes=1000-", f"bytes={1000 + server.limit}-"]
    assert leftovers(root) == []


def test_the_mirror_is_used_if_the_host_fails_or_delivers_a_wrong_file(server, root, content):
    for wrong in (None, b"<html>moved</html>"):
        server.files = {"/cifar_teachers.tar": archive(content)} | ({PLACE: wrong} if wrong else {})
        record = zoo.fetch("resnet56")
        assert record["origin"]["source"] == f"{server.url}/cifar_teachers.tar (cifar_teachers{PLACE})"
        assert leftovers(root) == ["cifar_teachers.tar"]
        for path in (artifacts.weights_path(record["name"]), artifacts.record_path(record["name"])):
            path.unlink()
    assert server.paths.count("/cifar_teachers.tar") == 1  # kept for the others


@pytest.mark.parametrize("kind", ["a page", "another architecture", "another network", "another file"])
def test_wrong_content_is_discarded_and_nothing_is_registered(server, root, kind, content, monkeypatch):
    other = io.BytesIO()
    torch.manual_seed(5)
    torch.save(build_model("resnet20" if kind == "another architecture" else "resnet56", 100).state_dict(), other)
    server.files[PLACE] = {"a page": b"<html>", "another file": content}.get(kind, other.getvalue())
    messages = {
        "a page": "resnet56_vanilla.pth: ",
        "another architecture": "another architecture: lacks layer1.3",
        "another network": "published are 72.34 %",
        "another file": "re-runs of the benchmark report",
    }
    if kind == "another file":
        monkeypatch.setitem(zoo.REPORTED, "resnet56", "0" * 64)
    for _ in range(2):  # the second try does not find the first one's file
        with pytest.raises(
            ConnectionError, match=f"resnet56 could not be fetched .*{messages[kind]}.*404.*by hand and run"
        ):
            zoo.fetch("resnet56")
    assert server.paths.count(PLACE) == 2
    assert leftovers(root) == []
    assert not list((root / "pth_models").glob("*.pth"))
    assert artifacts.records() == []


def test_an_interrupted_measurement_does_not_cost_the_download(server, root, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    rest = zoo.register
    monkeypatch.setattr(zoo, "register", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.fetch("resnet56")
    monkeypatch.setattr(zoo, "register", rest)
    zoo.fetch("resnet56")
    assert len(server.paths) == 1


def test_an_invalid_archive_or_one_without_the_teacher_is_an_error(server, root, content):
    server.files = {"/cifar_teachers.tar": b"no archive" * 100}
    with pytest.raises(ConnectionError, match="not a valid archive .*the download is discarded"):
        zoo.fetch("resnet56")
    assert leftovers(root) == []
    server.files = {"/cifar_teachers.tar": archive(content, "elsewhere/file.pth")}
    with pytest.raises(ConnectionError, match="not a valid archive .without resnet56_vanilla/ckpt_epoch_240.pth"):
        zoo.fetch("resnet56")


def test_a_hash_reported_by_others_is_called_so(server, content, monkeypatch):
    monkeypatch.setitem(zoo.REPORTED, "resnet56", hashlib.sha256(content).hexdigest())
    assert "they publish none, others report this one" in zoo.report(zoo.fetch("resnet56"))


def test_an_unknown_name_is_refused_before_anything_is_fetched(server):
    result = run("resnet56", "resnet57")
    assert result.exit_code == 1
    assert "resnet57: is not published; did you mean resnet56" in result.stderr
    assert server.paths == []


def test_the_table_lists_published_and_stored_teachers(server):
    lines = [line.split() for line in run().output.splitlines()]
    assert lines[0] == ["architecture", "published", "stored", "here"]
    assert ["resnet50_crd", "79.34", "%", "-"] in lines
    assert len(lines) == 1 + len(zoo.FILES)
    zoo.fetch("resnet56")
    assert "teacher_resnet56_cifar100 (published, 72.00 %)" in run("--list").output
    path = artifacts.weights_path("teacher_resnet56_cifar100")
    artifacts.save_json(
        path.with_suffix(".json"), {k: v for k, v in find_weights(str(path)).description.items() if k != "origin"}
    )
    assert "teacher_resnet56_cifar100 (trained here, 72.00 %)" in run().output


def test_every_published_teacher_has_a_file_and_an_architecture():
    assert set(zoo.published_teachers()) == set(zoo.FILES)
    for model in zoo.FILES:
        build_model(model, 100)


def test_images_are_normalised_as_in_the_benchmark():
    assert DATASETS["cifar100"].statistics == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def test_a_users_file_is_registered_and_reported_as_unverified(root):
    torch.save({"net": build_model("resnet8", 10).state_dict()}, root / "mine.pth")
    command = ["--file", str(root / "mine.pth"), "--model", "resnet8", "--dataset", "digits"]
    assert "near chance" in run(*command).output  # it is untrained
    result = run(*command, "--force")
    assert result.exit_code == 0, result.output
    assert "teacher_resnet8_digits: registered" in result.output
    assert "not verified who trained it, how, on which images" in result.output
    assert "% of the 360 test images of digits\n" in result.output
    for wrong in (["--file", str(root / "mine.pth")], ["--model", "resnet8"]):
        assert "belong together" in run(*wrong).stderr
    wrong = run("--file", str(root / "mine.pth"), "--model", "resnet9", "--dataset", "nothing")
    assert "model = resnet9: unknown" in wrong.stderr


def test_a_wrong_archive_is_fetched_again_and_an_interrupted_one_keeps_its_source(server, root, content, monkeypatch):
    server.files = {"/cifar_teachers.tar": archive(b"no checkpoint")}
    assert run("resnet56").exit_code
    assert leftovers(root) == []
    server.files = {"/cifar_teachers.tar": archive(content)}
    with monkeypatch.context() as patched:
        patched.setattr(zoo, "register", interrupted)
        with pytest.raises(KeyboardInterrupt):
            zoo.fetch("resnet56")
    assert zoo.fetch("resnet56")["origin"]["source"].startswith(zoo.MIRROR)


def interrupted(*_):
    raise KeyboardInterrupt

import pytest
import record_fixtures
import torch

from kdhelpers import artifacts, load_model
from kdhelpers.models import build_model
from kdhelpers.training.teacher import Teacher, load_teacher
from kdhelpers.weights.load import describe_teacher, find_teacher, find_weights, start_from


@pytest.fixture
def stored(root):
    """A teacher's weights with a sidecar, as fit writes them."""
    torch.manual_seed(0)
    network = build_model("resnet8", 10).eval()
    path = artifacts.save_tensors(artifacts.weights_path("teacher_resnet8_digits"), network.state_dict())
    facts = {"schema": 1, "sha256": artifacts.sha256(path), "model": "resnet8", "model_options": {}, "num_classes": 10}
    artifacts.save_json(path.with_suffix(".json"), facts)
    return network, path


def test_load_model_by_name_and_by_path_gives_the_same_network(stored):
    network, path = stored
    images = torch.randn(3, 3, 32, 32)
    for name in ("teacher_resnet8_digits", "teacher_resnet8_digits.pth", str(path)):
        assert torch.equal(load_model(name)(images), network(images))


def test_a_file_without_sidecar_is_identified_by_its_tensors_or_by_arguments(stored):
    network, path = stored
    path.with_suffix(".json").unlink()
    for given in ({}, {"model": "resnet8", "num_classes": 10}):
        loaded = load_model(str(path), **given)
        assert not loaded.training
        assert torch.equal(loaded.fc.weight, network.fc.weight)


def test_a_file_that_disagrees_with_its_sidecar_is_not_used(stored):
    _, path = stored
    artifacts.save_tensors(path, build_model("resnet8", 10).state_dict())
    for load in (load_model, find_weights, load_teacher):
        with pytest.raises(ValueError, match="its content is not what teacher_resnet8_digits.json describes"):
            load(str(path))


def test_weights_are_path_description_and_hash(stored):
    _, path = stored
    weights = find_weights("teacher_resnet8_digits")
    assert weights == find_weights(str(path)) == find_teacher("resnet8", "digits")
    assert (weights.path, weights.sha256) == (path, artifacts.sha256(path))
    assert weights.description == artifacts.load_json(path.with_suffix(".json"))
    path.with_suffix(".json").unlink()
    assert find_weights(str(path)).description == {}
    with pytest.raises(FileNotFoundError, match="teacher_vgg8_digits: not trained yet"):
        find_teacher("vgg8", "digits")


def test_a_weight_file_is_hashed_once_per_load(stored, monkeypatch):
    hashed, sha256 = [], artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda path: hashed.append(path) or sha256(path))

    def use_everywhere():
        weights = find_teacher("resnet8", "digits")
        start_from(load_model(weights), weights)
        return weights.sha256, weights.description

    for load, arguments in (
        (load_model, ["teacher_resnet8_digits"]),
        (load_teacher, ["teacher_resnet8_digits"]),
        (describe_teacher, ["resnet8", "digits"]),
        (use_everywhere, []),
    ):
        hashed.clear()
        load(*arguments)
        assert hashed == [stored[1]]


def test_an_error_for_another_architecture_gives_the_first_difference(stored):
    _, path = stored
    with pytest.raises(ValueError, match=r"read as resnet14.*another architecture: lacks layer1.1.conv1.weight"):
        load_model(str(path), model="resnet14")
    with pytest.raises(ValueError, match=r"fc.weight is \(10, 64\), expected \(7, 64\)"):
        load_model(str(path), num_classes=7)


def test_a_checkpoint_without_a_state_dict_is_refused(root):
    path = artifacts.save_tensors(root / "x.pth", {"epoch": 3, "weights": [1.0]})
    with pytest.raises(ValueError, match="not a state_dict"):
        load_model(str(path), model="resnet8", num_classes=10)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("student_lm_wrn_16_2_cifar100", "dataset=cifar100 model=wrn_16_2 method=lm teacher=TEACHER`"),
        ("student_lm_unlabelled_resnet8x4_my_birds_seed2", "dataset=my_birds model=resnet8x4 method=lm_unlabelled"),
        ("student_si_resnet8_digits-0123abcd", "dataset=digits model=resnet8 method=si`"),
        ("teacher_resnet56_cifar100", "model=resnet56 role=teacher` trains them; `python -m kdhelpers teachers`"),
        ("my_own_name", "list runs"),
        ("student_nothing_resnet8_digits", "list runs"),
    ],
)
def test_missing_weights_name_the_command_that_trains_them(root, name, command):
    with pytest.raises(FileNotFoundError, match=f"weights = {name}: not trained yet") as error:
        find_weights(name)
    assert command in str(error.value)
    assert "01_teacher" not in str(error.value)


def test_missing_weights_name_the_nearest_stored_ones(stored):
    with pytest.raises(FileNotFoundError, match="did you mean teacher_resnet8_digits"):
        find_weights("teacher_resnet8_digit")
    with pytest.raises(FileNotFoundError, match="did you mean teacher_resnet8_digits.*list runs"):
        find_weights("teacher_resnet8_digit", datasets=["digits"])
    with pytest.raises(FileNotFoundError, match="did you mean resnet"):
        find_teacher("resnet21", "digits")


def test_weights_that_a_checkout_lacks_are_trained_again_by_their_record(root):
    record = record_fixtures.record(50.0)
    record_fixtures.store(record)
    with pytest.raises(FileNotFoundError, match=f"only their record is stored.*train .*{record['name']}.json`"):
        find_weights(record["name"])
    record_fixtures.store(record | {"origin": {}})
    with pytest.raises(FileNotFoundError, match="`python -m kdhelpers teachers` fetches or registers them"):
        find_weights(record["name"])


def test_an_untrained_teacher_names_its_command(root):
    with pytest.raises(
        FileNotFoundError,
        match="teacher_resnet20_digits: not trained yet.*train dataset=digits model=[a-z0-9]* role=teacher",
    ):
        load_teacher("teacher_resnet20_digits")


def test_a_teacher_is_frozen_and_folded_and_outputs_the_same(stored):
    network, _ = stored
    teacher = load_teacher("teacher_resnet8_digits")
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    outputs = teacher(images)
    torch.testing.assert_close(outputs.logits, network(images).detach(), rtol=1e-4, atol=1e-4)
    assert not outputs.logits.requires_grad
    assert not any(p.requires_grad for p in teacher.features.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in teacher.features.modules())
    assert outputs.feature_maps["layer2"].shape == (4, 32, 16, 16)
    assert len(teacher.sha256) == 64


def test_a_bf16_teacher_stays_close(stored):
    network, _ = stored
    images = torch.randn(16, 3, 32, 32)
    exact, rough = network(images), Teacher(network, dtype=torch.bfloat16)(images).logits.float()
    assert (exact - rough).abs().max() < 0.05 * exact.std() + 0.05


def test_a_file_that_is_not_weights_is_named(root):
    import tarfile

    with tarfile.open(root / "weights.tar", "w") as archive:
        archive.add(__file__, "resnet.pth")
    with pytest.raises(ValueError, match="weights.tar: is an archive with resnet.pth inside; unpack it"):
        load_model(str(root / "weights.tar"))
    (root / "weights.bin").write_bytes(b"1234567890" * 10)
    with pytest.raises(ValueError, match="weights.bin: has another extension than .pth; rename it"):
        load_model(str(root / "weights.bin"))

"""Weights of others: the same outputs as torchvision's network, strict about every tensor, nothing downloaded."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

import nas
from nas.architecture import Architecture
from nas.inputs import InputError
from nas.network import Network, build
from nas.space import Space
from nas.weights import load_weights, slug

SPACES = Path(__file__).parent.parent / "search_spaces"
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("nothing is downloaded unless the user asks for it")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))


def ours(width: float = 0.35, classes: int = 10, resolution: int = 96) -> Architecture:
    """The member of search_spaces/mobilenet_v2.yaml, at any resolution."""
    space = Space.load(SPACES / "mobilenet_v2.yaml", classes=classes)
    member = next(x for x in space.enumerate() if space.encode(x)["width"] == width)
    return Architecture(member.stages, resolution, member.in_channels)


def theirs(width: float = 0.35, classes: int = 10, seed: int = 0, name: str = "mobilenet_v2") -> nn.Module:
    """Randomly initialised, and so are the statistics and scales of its batch normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = torchvision.models.get_model(name, width_mult=width, num_classes=classes)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight.data, part.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.7, 1.4)
                for tensor in (part.bias.data, part.running_mean):
                    assert tensor is not None
                    tensor.normal_(0, 0.3)
                assert part.num_batches_tracked is not None
                part.num_batches_tracked.fill_(7)
    return module.eval()


@pytest.fixture(scope="module")
def source() -> nn.Module:
    return theirs()


@pytest.fixture
def state(source: nn.Module) -> State:
    """A copy, to be spoilt."""
    return {name: tensor.clone() for name, tensor in source.state_dict().items()}


def outputs(network: nn.Module, resolution: int) -> Tensor:
    x = torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found: Tensor = network.eval()(x)
    return found


# The same network


@pytest.mark.parametrize("width", WIDTHS)
def test_the_outputs_are_torchvisions(width: float) -> None:
    source, network = theirs(width), build(ours(width, resolution=64))
    before = outputs(network, 64)
    start = nas.load_weights(network, source)
    assert (start.source, start.sha256, start.new) == ("MobileNetV2", None, ())
    expected = outputs(source, 64)
    assert expected.abs().max() > 0.05
    assert (outputs(network, 64) - expected).abs().max() <= 1e-5 < (before - expected).abs().max()


@pytest.mark.parametrize("resolution", [32, 97])
def test_at_any_resolution(source: nn.Module, resolution: int) -> None:
    network = build(ours(resolution=resolution))
    load_weights(network, source)
    assert (outputs(network, resolution) - outputs(source, resolution)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_those_of_mobilenet_v3_though_its_batch_normalisation_has_another_epsilon(name: str) -> None:
    source = theirs(1.0, 10, name=name)
    with torch.no_grad():  # where the variance is small, the epsilon counts
        for part in source.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.eps == 1e-3 and part.running_var is not None
                part.running_var *= 0.02
    before = [x.clone() for x in source.state_dict().values()]
    network, other = build(v3(name)), build(v3(name, classes=4))
    assert load_weights(network, source).new == ()
    expected = outputs(source, 64)
    assert expected.abs().max() > 0.05
    assert (outputs(network, 64) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(x, y) for x, y in zip(before, source.state_dict().values(), strict=True))
    last = f"layers.{len(other.layers) - 1}.layers.5."
    assert load_weights(other, source).new == (last + "weight", last + "bias")
    again = build(v3(name))
    load_weights(again, network)
    assert torch.equal(outputs(again, 64), outputs(network, 64))


def v3(name: str, classes: int = 10) -> Architecture:
    return next(Space.load(SPACES / f"{name}.yaml", classes=classes).enumerate())


@pytest.mark.parametrize(("name", "other"), [("large", "small"), ("small", "large")])
def test_one_mobilenet_v3_is_not_the_other(name: str, other: str) -> None:
    with pytest.raises(InputError, match=r"^MobileNetV3: features\S+ has shape \[\S+, .* of the network's layers\[1\]"):
        load_weights(build(v3(f"mobilenet_v3_{name}")), theirs(1.0, name=f"mobilenet_v3_{other}"))


def test_what_is_loaded_is_a_copy(source: nn.Module) -> None:
    network = build(ours())
    load_weights(network, source)
    before = outputs(source, 32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(outputs(source, 32), before)


def test_another_class_count_keeps_the_body_and_the_classifier_of_the_seed(source: nn.Module) -> None:
    network, untouched = build(ours(classes=4), seed=5), build(ours(classes=4), seed=5).state_dict()
    start = load_weights(network, source)
    new = ("layers.19.layers.3.weight", "layers.19.layers.3.bias")
    assert start.new == new
    assert all(torch.equal(network.state_dict()[name], untouched[name]) for name in new)
    assert not torch.equal(build(ours(classes=4), seed=6).state_dict()[new[0]], untouched[new[0]])
    features = source.get_submodule("features")
    body = nn.Sequential(*list(network.layers)[:-1])
    assert (outputs(body, 32) - outputs(features, 32)).abs().max() <= 1e-5


def test_the_global_generator_is_left_as_it_was(source: nn.Module) -> None:
    network, before = build(ours(), seed=0), torch.get_rng_state()
    load_weights(network, source)
    assert torch.equal(torch.get_rng_state(), before)


# Where the tensors come from


def torch_file(state: State, folder: Path) -> Path:
    torch.save(state, folder / "v2.pth")
    return folder / "v2.pth"


def safetensors_file(state: State, folder: Path) -> Path:
    """This format has its own order of tensors."""
    save_file(state, folder / "v2.safetensors")
    return folder / "v2.safetensors"


@pytest.mark.parametrize("write", [torch_file, safetensors_file])
def test_files(write: Callable[[State, Path], Path], source: nn.Module, state: State, tmp_path: Path) -> None:
    file = write(state, tmp_path)
    for path in (file, str(file)):
        network = build(ours())
        start = load_weights(network, path)
        assert start.source == str(file) and start.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (outputs(network, 32) - outputs(source, 32)).abs().max() <= 1e-5


def test_half_precision_and_another_order_are_read(state: State) -> None:
    one, other = build(ours()), build(ours())
    half = {name: x.half() if x.is_floating_point() else x for name, x in reversed(state.items())}
    load_weights(one, half)
    load_weights(other, {name: x.float() if x.is_floating_point() else x for name, x in half.items()})
    assert torch.equal(outputs(one, 32), outputs(other, 32))
    assert {x.dtype for x in one.parameters()} == {torch.float32}


def test_eight_bit_floats_are_read(state: State) -> None:
    """isfinite has no kernel for them."""
    state["classifier.1.bias"] = torch.full((10,), 0.5, dtype=torch.float8_e4m3fn)
    network = build(ours())
    load_weights(network, state)
    assert torch.equal(network.state_dict()["layers.19.layers.3.bias"], torch.full((10,), 0.5))


def test_our_own_network_with_other_classes() -> None:
    source, network = build(ours(classes=7), seed=1), build(ours(classes=4, resolution=32), seed=2)
    start = load_weights(network, source)
    assert start.source == "Network" and len(start.new) == 2
    for name, tensor in network.state_dict().items():
        assert name in start.new or torch.equal(tensor, source.state_dict()[name])


# What does not fit


def spoilt(change: Callable[[State], object], says: str) -> Any:
    return pytest.param(change, says, id=says[:50])


MISSHAPED = [
    spoilt(lambda x: x.pop("features.3.conv.1.1.running_var"), "features.3.conv.1.1.running_var is missing; "),
    spoilt(lambda x: x.pop("classifier.1.bias"), "classifier.1.bias is missing; torchvision's mobilenet_v2 has it"),
    spoilt(lambda x: x.update(more=torch.zeros(1)), "'more' is not known; torchvision's mobilenet_v2 has no such "),
    spoilt(lambda x: x.update({"a\nb": torch.zeros(1)}), r"'a\nb' is not known"),
    spoilt(
        lambda x: x.update({"features.3.conv.1.0.weight": torch.zeros(48, 1, 5, 5)}),
        "features.3.conv.1.0.weight has shape [48, 1, 5, 5], but must be the weight of shape [48, 1, 3, 3] of the "
        "network's layers[3] (bottleneck)",
    ),
    spoilt(
        lambda x: x.update({"features.0.0.weight": x["features.0.0.weight"][:, :1]}),
        "features.0.0.weight has shape [16, 1, 3, 3], but must be the weight of shape [16, 3, 3, 3] of the network's "
        "layers[0] (conv)",
    ),
    spoilt(
        lambda x: x.update({"classifier.1.weight": torch.zeros(10, 1281)}),
        "classifier.1.weight has shape [10, 1281], but must be the weight of shape [10, 1280] of the network's "
        "layers[19] (classifier)",
    ),
    spoilt(
        lambda x: x.update({"classifier.1.weight": torch.zeros(9, 1280)}),
        "classifier.1.bias has shape [10], but must be the bias of shape [9]",
    ),
    spoilt(lambda x: x.update({"classifier.1.bias": torch.tensor(0.0)}), "classifier.1.bias has shape [], but must"),
    spoilt(lambda x: x["features.1.conv.2.bias"].fill_(float("nan")), "features.1.conv.2.bias is not finite"),
    spoilt(lambda x: x.update({"classifier.1.bias": [0.0]}), "classifier.1.bias is a list, but must be a dense"),
    spoilt(lambda x: x.update({"classifier.1.bias": torch.zeros(10).to_sparse()}), "is a Tensor, but must be a dense"),
    spoilt(lambda x: x.update({"classifier.1.bias": torch.zeros(10, device="meta")}), "but must be a dense tensor"),
    spoilt(
        lambda x: x.update({"classifier.1.bias": torch.zeros(10).long()}),
        "classifier.1.bias has the type torch.int64, but must be a float",
    ),
    spoilt(
        lambda x: x.update({"features.0.1.num_batches_tracked": torch.tensor(0.5)}),
        "features.0.1.num_batches_tracked has the type torch.float32, but must be",
    ),
    spoilt(lambda x: x.clear(), "holds 'nothing', but must hold the tensors of this network or torchvision's "),
]


@pytest.mark.parametrize(("change", "says"), MISSHAPED)
def test_what_does_not_fit_is_one_line_and_changes_nothing(
    change: Callable[[State], object], says: str, state: State
) -> None:
    change(state)
    network, untouched = build(ours(), seed=0), build(ours(), seed=0).state_dict()
    with pytest.raises(InputError) as error:
        load_weights(network, state)
    assert str(error.value).startswith("state dict: ") and says in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in network.state_dict().items())


def edited(change: Callable[[str], str]) -> Network:
    return build(Architecture.from_yaml(change(ours().to_yaml())))


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda: build(ours(0.5)), r"features\.2\.conv\.2\.weight has shape \[8, 48, 1, 1\], .*layers\[2\] \(bott"),
        (lambda: edited(lambda x: x.replace("t: 6", "t: 4")), r"features\.2\.conv\.0\.0\.weight has shape \[48, 8, 1"),
        (lambda: edited(lambda x: x.replace("n: 4", "n: 5")), r"features\.11\.conv\..*layers\[11\] \(bottleneck\)$"),
        (lambda: edited(lambda x: re.sub(r"  - \{block: bott.*c: 112.*\n", "", x)), r"features\.17\."),
        (lambda: edited(lambda x: x.replace("t: 1}", "t: 1, bias: true}")), r"features\.1\.conv\.0\.1\.weight has"),
        (lambda: edited(lambda x: x.replace("t: 1}", "t: 1, expand: true}")), r"features\.1\.conv\.0\.0\.weight has"),
    ],
)
def test_a_network_that_is_no_such_mobilenet(network: Callable[[], Network], says: str, source: nn.Module) -> None:
    with pytest.raises(InputError, match=f"^MobileNetV2: {says}"):
        load_weights(network(), source)


def test_a_classifier_without_the_bias_of_theirs_is_one_line(source: nn.Module) -> None:
    network = edited(lambda x: x.replace("block: classifier,", "block: classifier, bias: false,"))
    count = len(source.state_dict())
    with pytest.raises(InputError, match=f"^MobileNetV2: has {count} tensors, but must have {count - 1} as the netw"):
        load_weights(network, source)


def test_our_own_network_of_another_architecture() -> None:
    other = edited(lambda x: x.replace("n: 4", "n: 5"))
    with pytest.raises(InputError, match=r"^Network: layers\.19\.layers\.3\.weight is missing; this network has it$"):
        load_weights(build(ours()), other)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "shufflenet_v2_x0_5"])
def test_another_network_of_torchvision_is_one_line(name: str) -> None:
    with torch.device("meta"):
        names = list(torchvision.models.get_model(name, weights=None).state_dict())
    with pytest.raises(InputError, match=r"^state dict: (holds 'conv1|features\.\S+ is missing; torchvision's)"):
        load_weights(build(ours()), {x: torch.tensor(0 if x.endswith("tracked") else 0.0) for x in names})


class Evil:
    """What pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def pickled(folder: Path) -> None:
    torch.save(Evil(), folder / "w.pth")


def module(folder: Path) -> None:
    torch.save(mobilenet_v2(), folder / "w.pth")


def no_dictionary(folder: Path) -> None:
    torch.save([1], folder / "w.pth")


def nested(folder: Path) -> None:
    torch.save({"model": theirs().state_dict(), "epoch": 3}, folder / "w.pth")


def text(folder: Path) -> None:
    (folder / "w.pth").write_text("weights")


def cut(folder: Path) -> None:
    content = torch_file(theirs().state_dict(), folder).read_bytes()
    (folder / "w.pth").write_bytes(content[: len(content) // 2])


def empty_folder(folder: Path) -> None:
    (folder / "w.pth").mkdir()


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "w.pth")


def nothing(folder: Path) -> None:
    pass


RULE = "but must be imagenet, a .pth or .safetensors file, or a folder that nas retrain made"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (pickled, "is damaged, or is not what torch.save makes of a state dict (UnpicklingError)"),
        (module, "is damaged, or is not what torch.save makes of a state dict (UnpicklingError)"),
        (no_dictionary, "holds no state dict, which maps names to tensors"),
        (nested, "model is a OrderedDict, but must be a dense tensor of numbers"),
        (text, "is damaged, or is not what torch.save makes of a state dict"),
        (cut, "is damaged, or is not what torch.save makes of a state dict"),
        (empty_folder, RULE),
        (fifo, RULE),
        (nothing, RULE),
    ],
)
def test_a_file_that_is_none_is_one_line(
    make: Callable[[Path], None], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    with pytest.raises(InputError) as error:
        load_weights(build(ours()), tmp_path / "w.pth")
    assert says in str(error.value) and "w.pth" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.weights.MAX_WEIGHTS_BYTES", 10)
    (tmp_path / "w.pth").write_bytes(bytes(11))
    with pytest.raises(InputError, match="is too large: it must have at most 10 bytes"):
        load_weights(build(ours()), tmp_path / "w.pth")


# ImageNet's


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A download that makes the file from a random network; the list has how it was asked for."""
    asked: list[dict[str, Any]] = []

    def load(url: str, **settings: Any) -> State:
        asked.append({"url": url, **settings})
        print("Downloading")
        file = tmp_path / "hub/checkpoints" / url.rpartition("/")[2]
        file.parent.mkdir(parents=True)
        torch.save(theirs(1.0, 1000).state_dict(), file)
        return {}

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    return asked


def test_imagenet_is_downloaded_once_checked_and_when_asked_for(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    network = build(ours(1.0))
    with pytest.raises(InputError, match=r"7ebf99e0\.pth: is damaged: its SHA-256 does not begin with 7ebf99e0; del"):
        load_weights(network, "imagenet")
    assert capsys.readouterr().out == ""
    weights = MobileNet_V2_Weights.IMAGENET1K_V2
    assert [asked["url"] for asked in hub] == [weights.url]
    assert hub[0]["weights_only"] is True and hub[0]["check_hash"] is True
    file = next((tmp_path / "hub/checkpoints").iterdir())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    right = file.rename(file.with_name(f"mobilenet_v2-{digest[:8]}.pth"))
    monkeypatch.setattr(MobileNet_V2_Weights.IMAGENET1K_V2.value, "url", f"https://x/{right.name}", raising=False)
    start = load_weights(network, "imagenet")
    assert (start.source, start.sha256, len(start.new), len(hub)) == ("imagenet", digest, 2, 1)
    whole = build(ours(1.0, 1000))
    assert load_weights(whole, "imagenet").new == ()
    assert (outputs(whole, 32) - outputs(theirs(1.0, 1000), 32)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("architecture", "file"),
    [
        (ours(1.0), "mobilenet_v2-7ebf99e0.pth"),
        (v3("mobilenet_v3_large"), "mobilenet_v3_large-5c1a4163.pth"),
        (v3("mobilenet_v3_small"), "mobilenet_v3_small-047dcff4.pth"),
    ],
)
def test_imagenet_is_that_of_the_network(architecture: Architecture, file: str, hub: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="is damaged"):
        load_weights(build(architecture), "imagenet")
    assert [asked["url"].rpartition("/")[2] for asked in hub] == [file]


def test_what_imagenets_do_not_fit_is_said_before_the_download(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"^imagenet: features\.0\.0\.weight has shape \[32, 3, 3, 3\], but must be"):
        load_weights(build(ours(0.5)), "imagenet")
    assert not hub


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network\nhere")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(InputError, match=r"^imagenet: https://\S+ cannot be downloaded to \S+: no network here$"):
        load_weights(build(ours(1.0)), "imagenet")


@pytest.mark.network
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_the_real_ones_fit(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    network = build(ours(1.0, 1000, 224) if name == "mobilenet_v2" else v3(name, 1000))
    assert load_weights(network, "imagenet").new == ()
    source = torchvision.models.get_model(name, weights="DEFAULT").eval()
    assert (outputs(network, 224) - outputs(source, 224)).abs().max() <= 1e-5 * outputs(source, 224).abs().max()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", "imagenet"),
        ("/a/b/mine.v2.pth", "mine.v2"),
        ("/a/b c.pt", "b-c"),
        ("x.safetensors", "x"),
        ("runs/a/retrain/0123-epochs3-seed0", "0123-epochs3-seed0"),
        ("runs/a/retrain/0123-epochs3-seed0/weights.safetensors", "0123-epochs3-seed0"),
        ("../..", ""),
        ("날씨.pth", ""),
        ("a" * 300 + ".pth", "a" * 60),
    ],
)
def test_the_part_of_a_folders_name(name: str, expected: str) -> None:
    assert slug(name) == expected

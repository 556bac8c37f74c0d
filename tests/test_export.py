"""Networks as files for other runtimes: every block, any batch, operators that converters take, what is refused."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas import blocks
from nas.architecture import Architecture, Stage
from nas.augment import Batches, Normalisation
from nas.blocks import BLOCKS
from nas.blocks.block import ChannelShuffle
from nas.cli import main as cli
from nas.data.splits import Images
from nas.deploy import export
from nas.export import EXPORTERS, Card, Format, write_proven
from nas.export.graph import Unsupported
from nas.export.model import make_model
from nas.export.proof import accuracy, compare
from nas.inputs import InputError
from nas.latency.measure import Effort
from nas.network import build
from nas.space import Space

SPACES = Path(__file__).parents[1] / "search_spaces"
# Lowering takes ExecuTorch seconds a network.
FORMATS = [pytest.param(name, marks=[pytest.mark.slow] if name == "executorch" else []) for name in EXPORTERS]

# (block, in_channels, out_channels, stride, options): every way through every block's forward.
PLACES: list[tuple[str, int, int, int, dict[str, Any]]] = [
    ("conv", 3, 8, 2, {"activation": "silu", "bias": True}),
    ("separable", 8, 16, 2, {"k": 5, "activation": "hardswish"}),
    ("bottleneck", 8, 8, 1, {"t": 3}),
    ("bottleneck", 8, 16, 1, {"t": 2, "groups": 2, "shortcut": "projection", "linear": False}),
    ("bottleneck", 8, 16, 1, {"t": 2, "groups": 4, "shuffle": False, "shortcut": "expansion", "bias": True}),
    ("bottleneck", 8, 8, 1, {"t": 3, "se": 0.25, "activation": "hardswish"}),
    ("fused_bottleneck", 8, 8, 1, {"t": 2}),
    ("fused_bottleneck", 8, 12, 2, {"t": 1, "k": 5}),
    ("cse", 8, 8, 1, {"t": 2}),
    ("cse", 8, 12, 2, {"t": 2, "groups": 2}),
    ("cse", 8, 20, 1, {"t": 2, "stack": True, "norm": "each"}),
    ("shuffle", 8, 8, 1, {"groups": 2}),
    ("shuffle", 8, 24, 2, {"groups": 2}),
    ("shuffle", 8, 16, 1, {"groups": 1}),
    ("identity", 8, 8, 1, {}),
    ("identity", 8, 12, 2, {}),
    ("maxpool", 8, 8, 2, {}),
    ("classifier", 8, 5, 1, {}),
    ("classifier", 8, 5, 1, {"hidden": 16}),
]


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    """Every format whose packages are installed."""
    try:
        EXPORTERS[request.param].check()
    except InputError as error:
        pytest.skip(str(error))
    return EXPORTERS[request.param]


def card(shape: tuple[int, int], classes: int = 5) -> Card:
    mean = tuple(0.1 * (i + 1) for i in range(shape[0]))
    return Card("0" * 12, shape[0], shape[1], mean, (0.25,) * shape[0], tuple(f"klasse {i} ☃" for i in range(classes)))


def images(shape: tuple[int, int], count: int = 70) -> Any:
    return np.random.default_rng(0).standard_normal((count, shape[0], shape[1], shape[1])).astype(np.float32)


def lived_in(module: nn.Module) -> nn.Module:
    """Normalisation as it is behind a training: with new values, folding it wrongly would not show."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor in (each.running_mean, each.bias.data):
                assert tensor is not None
                tensor.normal_()
            for tensor in (each.running_var, each.weight.data):
                assert tensor is not None
                tensor.uniform_(0.5, 2)
    return module.eval()


class Pooled(nn.Module):
    """A block with numbers behind it, as a classifier would have them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).flatten(1)


def test_every_block_has_a_place() -> None:
    assert {place[0] for place in PLACES} == BLOCKS.keys()


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_block_is_what_pytorch_says(form: Format, place: Any, tmp_path: Path) -> None:
    block, inside, outside, stride, options = place
    module = lived_in(Pooled(blocks.make(block, inside, outside, stride, 9, options)))
    proof = write_proven(form, module, card((inside, 9)), images((inside, 9)), tmp_path / f"x{form.suffix}")
    assert (proof.images, proof.equal) == (70, 70) and proof.relative < 1e-5


@pytest.mark.parametrize("space", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_members_of_every_space(form: Format, space: Path, tmp_path: Path) -> None:
    if form is EXPORTERS["executorch"] and space.stem not in ("mobile_tiny", "mobilenet_v2_cse_only", "shufflenet_v1"):
        pytest.skip("half a minute a network: three spaces have all blocks")
    member = Space.load(space, 3, 10).sample(random.Random(3))
    small = Architecture(member.stages, min(member.resolution, 48), 3)
    try:
        network = lived_in(build(small, seed=0))
    except InputError:
        network = lived_in(build(member, seed=0))
    shape = (3, network.architecture.resolution)
    proof = write_proven(form, network, card(shape, 10), images(shape, 5), tmp_path / f"x{form.suffix}")
    assert proof.equal == 5


def test_the_file_says_what_it_wants(form: Format, tmp_path: Path) -> None:
    file, told = tmp_path / f"x{form.suffix}", card((3, 8))
    write_proven(form, lived_in(build(small(), seed=0)), told, images((3, 8)), file)
    texts = form.texts(file)
    assert told.texts().items() <= texts.items() and json.loads(texts["classes"]) == list(told.classes)
    assert json.loads(texts["std"]) == [0.25] * 3 and texts["resolution"] == "8"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def small(groups: int = 2) -> Architecture:
    stages = (
        Stage.of("conv", 8),
        Stage.of("shuffle", 16, s=2, groups=groups),
        Stage.of("bottleneck", 16, t=2, groups=groups),
        Stage.of("classifier", 5),
    )
    return Architecture(stages, 8, 3)


class Shifty(nn.Module):
    """Not the same in a file as here: what is written has one more layer than what is compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = lived_in(build(small(), seed=0)), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.network(x)
        return y if self.calls < 3 else torch.mul(y, y)


def test_a_file_that_says_something_else_is_not_written(form: Format, tmp_path: Path) -> None:
    file = tmp_path / f"x{form.suffix}"
    with pytest.raises(InputError, match=r"is not written: \w+ and PyTorch disagree: \d+ of 70 predictions are equal"):
        write_proven(form, Shifty(), card((3, 8)), images((3, 8)), file)
    assert not list(tmp_path.iterdir())


def test_nan_is_a_difference() -> None:
    a, b = np.zeros((2, 3), np.float32), np.full((2, 3), np.nan, np.float32)
    assert not compare(a, b).relative <= 1


def operators(module: nn.Module, shape: tuple[int, int]) -> Counter[str]:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    model = make_model(module.eval(), torch.zeros(1, shape[0], shape[1], shape[1]), {})
    return Counter(node.op_type for node in model.graph.node)


def test_channel_shuffle_is_reshape_transpose_reshape() -> None:
    assert operators(ChannelShuffle(2), (8, 4)) == {"Reshape": 2, "Transpose": 1}


def test_shapes_are_constants_and_normalisation_is_folded() -> None:
    found = operators(lived_in(build(small(), seed=0)), (3, 8))
    assert found.keys() == {
        *("Conv", "Relu", "Clip", "Add", "Concat", "AveragePool", "Reshape", "Transpose", "GlobalAveragePool", "Gemm")
    }
    assert found["Conv"] == 7 and found["Reshape"] == 5


def test_normalisation_that_follows_no_convolution() -> None:
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))
    assert operators(lived_in(module), (4, 4)) == {"Relu": 1, "Mul": 1, "Add": 1}


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


class Moving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0] * 4, 1, 4, 4)


class Call(nn.Module):
    """A function that uses a parameter."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call, self.weight = call, nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.call(self, x)
        return out


def test_normalisation_without_weights(form: Format, tmp_path: Path) -> None:
    plain = nn.BatchNorm2d(8, affine=False)
    assert plain.running_mean is not None and plain.running_var is not None
    plain.running_mean.normal_()
    plain.running_var.uniform_(0.5, 2)
    module = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), plain, nn.Flatten()).eval()
    proof = write_proven(form, module, card((3, 4)), images((3, 4)), tmp_path / f"x{form.suffix}")
    assert proof.relative < 1e-5


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Call(lambda self, x: x.chunk(2, 1)[0]), "operator chunk cannot be exported to ONNX"),
        (Call(lambda self, x: torch.stack([x, x])), "operator stack cannot be exported to ONNX"),
        (Call(lambda self, x: x + self.weight), "a tensor that no operator here made, such as a parameter, cannot be"),
        (Call(lambda self, x: torch.add(x, x, alpha=3)), "operator add cannot be exported to ONNX with a number"),
        (nn.Conv2d(4, 4, 3, padding="same"), "operator conv2d cannot be exported to ONNX with the padding same"),
        (Odd(), "operator cumsum cannot be exported to ONNX"),
        (Moving(), "operator reshape cannot be exported to ONNX where it moves the batch"),
        (nn.MaxPool2d(2, ceil_mode=True), "operator max_pool2d cannot be exported to ONNX with dilation, ceil_mode"),
        (nn.AdaptiveAvgPool2d(2), "operator adaptive_avg_pool2d cannot be exported to ONNX but for an output of 1 x 1"),
    ],
    ids=["tuple", "list", "parameter", "alpha", "padding", "unknown", "batch", "ceil", "adaptive"],
)
def test_what_has_no_operator_is_named(module: nn.Module, name: str) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    with pytest.raises(Unsupported, match=name):
        make_model(module.eval(), torch.zeros(1, 4, 4, 4), {})


def test_training_mode_is_refused() -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    with pytest.raises(Unsupported, match="from a network in training mode"):
        make_model(build(small(), seed=0), torch.zeros(1, 3, 8, 8), {})


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrain folder of a tiny network on digits; what it learned is no matter."""
    from safetensors.torch import save_file

    from nas.data import DataConfig, load

    folder, splits = tmp_path_factory.mktemp("retrained"), load(DataConfig(source="digits"))
    stages = (Stage.of("conv", 8), Stage.of("separable", 16, s=2), Stage.of("classifier", 10))
    network = lived_in(build(architecture := Architecture(stages, 8, 1), seed=0))
    (folder / "architecture.yaml").write_text(architecture.to_yaml())
    save_file(network.state_dict(), folder / "weights.safetensors")
    facts = {"id": architecture.id, "mean": splits.mean, "std": splits.std, "resolution": 8, "classes": splits.classes}
    data = {"source": "digits", "validation": 0.1, "seed": 0, "trained_on": "train"}
    (folder / "result.json").write_text(json.dumps({**facts, "data": data}))
    return folder


def test_a_retrained_network(form: Format, retrained: Path) -> None:
    name = next(name for name, each in EXPORTERS.items() if each is form)
    done = export(retrained, form=name)
    assert done.file.parent == retrained / "export" and done.facts["equal"] == done.facts["images"] > 100
    told = json.loads(done.file.with_name(f"{done.file.name}.json").read_text())
    assert told == done.facts and told["bytes"] == done.file.stat().st_size
    assert set(form.packages) <= set(told["versions"])


def test_int8(form: Format, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form.quantise is None:
        pytest.skip("no int8 in this format")
    monkeypatch.setattr("nas.deploy.TIMING", Effort(1, 1))
    name = next(name for name, each in EXPORTERS.items() if each is form)
    done = export(retrained, form=name, out=tmp_path / f"x{form.suffix}", int8=True)
    small = done.facts["int8"]
    assert abs(small["accuracy"] - small["accuracy_int8"]) < 0.1 and small["images"] == done.facts["images"]
    assert form.texts(tmp_path / small["file"]) == {**form.texts(done.file), "precision": "int8"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [done.file.name, f"{done.file.name}.json", small["file"]]
    )


def test_accuracy_on_images_that_were_trained_on_is_named(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.setattr("nas.deploy.TIMING", Effort(1, 1))
    folder = shutil.copytree(retrained, tmp_path / "retrained", ignore=shutil.ignore_patterns("export"))
    said = []
    for trained_on in ("train", "train+validation"):
        facts = json.loads((folder / "result.json").read_text())
        facts["data"]["trained_on"] = trained_on
        (folder / "result.json").write_text(json.dumps(facts))
        assert cli(["export", str(folder), "--out", str(tmp_path / "x.onnx"), "--int8"]) == 0
        assert json.loads((tmp_path / "x.onnx.json").read_text())["trained_on"] == trained_on
        said.append("validation images (it was trained on them, too); " in capsys.readouterr().out)
    assert said == [False, True]


def test_an_int8_file_that_the_runtime_cannot_read(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not left there; the other one is, with what is known of it."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")

    def spoilt(source: Path, calibration: Any, target: Path) -> None:
        target.write_bytes(b"no network")

    monkeypatch.setitem(EXPORTERS, "onnx", replace(EXPORTERS["onnx"], quantise=spoilt))
    with pytest.raises(Exception, match="INVALID_PROTOBUF"):
        export(retrained, out=tmp_path / "x.onnx", int8=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx", "x.onnx.json"]
    assert "int8" not in json.loads((tmp_path / "x.onnx.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "coreml"}, "--format is 'coreml', but must be one of: "),
        ({"out": "x.txt"}, r"--out is 'x\.txt', but must be a file that ends in \.onnx"),
        ({"place": "nowhere"}, "nowhere: is not a run"),
        ({"pick": "best"}, "--pick is 'best', but must be left out: .* is the folder of one retraining"),
    ],
)
def test_what_cannot_be_exported(retrained: Path, changes: dict[str, Any], message: str) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    with pytest.raises(InputError, match=message):
        export(**{"place": retrained, **changes})


def test_int8_of_a_format_that_has_none(retrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said before anything is written."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.setitem(EXPORTERS, "plain", replace(EXPORTERS["onnx"], quantise=None))
    with pytest.raises(InputError, match="--format is 'plain', but must be for --int8 one of: onnx"):
        export(retrained, form="plain", out=tmp_path / "x.onnx", int8=True)
    assert not list(tmp_path.iterdir())


def test_data_that_are_none_in_a_result(retrained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (tmp_path / "architecture.yaml").touch()
    facts = json.loads((retrained / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**facts, "data": {"source": 3}}))
    with pytest.raises(InputError, match=r"result\.json is damaged \(ValidationError: "):
        export(tmp_path)


def test_the_validation_split_is_never_whole_in_memory() -> None:
    """As float32 at 224 pixels it could be larger than that."""
    labels = np.arange(130) % 10
    pixels = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 1), dtype=np.uint8)
    batches = Batches(Images(pixels, labels), Normalisation((0.5,), (0.25,)), 8, torch.device("cpu"))
    assert [len(x) for x, _ in batches.arrays()] == [64, 64, 2]
    assert np.array_equal(np.concatenate([x for x, _ in batches.arrays()]), batches.plain(0, 130)[0].numpy())
    sizes: list[int] = []

    def predict(images: Any) -> Any:
        sizes.append(len(images))
        start = sum(sizes[:-1])
        right = np.eye(10, dtype=np.float32)[labels[start : start + len(images)]]
        return right if len(sizes) < 3 else -right

    assert accuracy(predict, batches.arrays()) == pytest.approx(128 / 130) and sizes == [64, 64, 2]


def test_a_damaged_result_is_one_line(retrained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (tmp_path / "architecture.yaml").touch()
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"result\.json is damaged \(KeyError: .*\); delete it"):
        export(tmp_path)

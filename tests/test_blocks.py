"""Blocks: one contract for all in BLOCKS, and each against its paper, a library or plain arithmetic."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2
from torchvision.models.efficientnet import FusedMBConv, FusedMBConvConfig
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.mobilenetv3 import InvertedResidual as InvertedResidualV3
from torchvision.models.mobilenetv3 import InvertedResidualConfig

from nas.architecture import Architecture, Layer, Stage
from nas.blocks import BLOCKS, Option, check_options, defaults_of, make, options_of, problem
from nas.blocks.block import ACTIVATIONS, Block, ChannelShuffle
from nas.blocks.bottleneck import Bottleneck
from nas.blocks.cse import CSE, ChannelwiseSE
from nas.inputs import InputError
from nas.network import build
from nas.space import Space
from nas.trace import trace_layer

SPACES = Path(__file__).parents[1] / "search_spaces"

# Legal and illegal values of every option that a block may have. A new option needs its line here.
LEGAL: dict[str, list[Any]] = {
    "activation": list(ACTIVATIONS),
    "bias": [True, False],
    "cap": [1, 8, 64],
    "dense": [True, False],
    "dropout": [0, 0.5],
    "expand": [True, False],
    "groups": [1, 2, 4],
    "hidden": [0, 1, 32],
    "k": [1, 3, 5, 7],
    "linear": [True, False],
    "norm": ["pair", "each"],
    "ratio": [1, 2, 4],
    "reduction": [1, 4, 10**6],
    "se": [0, 0.25, 1],
    "shortcut": ["bottleneck", "expansion", "none", "projection"],
    "shuffle": [True, False],
    "stack": [True, False],
    "t": [1, 1.5, 2, 6],
}
ILLEGAL: dict[str, list[Any]] = {
    "activation": ["gelu", None, 3],
    "bias": [0, "conv"],
    "cap": [0, 1.5, 100_001],
    "dense": [1, "true"],
    "dropout": [-0.1, 1, "half"],
    "expand": [1, "always"],
    "groups": [0, -1, 1.5, True],
    "hidden": [-1, 0.5, True],
    "k": [2, 0, -3, 101, 3.0, "3"],
    "linear": [0, "no"],
    "norm": ["both", True],
    "ratio": [0, 2.5],
    "reduction": [0, "4"],
    "se": [-0.25, 1.5, "yes", True],
    "shortcut": [True, False, "identity"],
    "shuffle": [None, 1],
    "stack": [1, "yes"],
    "t": [0, -1, 101, math.inf, math.nan, "6", True],
}
REQUIRED: dict[str, Any] = {"groups": 2, "t": 2}
# (input channels, output channels, stride, resolution): odd and even sides, one pixel, shape kept and changed.
PLACES = [
    (16, 16, 1, 8),
    (16, 48, 1, 5),
    (16, 48, 2, 7),
    (16, 24, 3, 8),
    (16, 16, 2, 9),
    (48, 16, 1, 6),
    (16, 16, 1, 1),
]


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def given(block: str, **options: Any) -> dict[str, Any]:
    """The block's required options, then `options`."""
    return {name: REQUIRED[name] for name, default in defaults_of(block).items() if default is None} | options


def stir(module: nn.Module) -> nn.Module:
    """Makes running means and variances, scales and shifts unlike those that change nothing."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


def alive(module: nn.Module) -> nn.Module:
    """Biases so large that no unit of a linear layer is dead by chance, and all have gradients."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.ones_(part.bias)
    return module


# --- the contract


CASES = [(block, None, None) for block in BLOCKS] + [
    (block, option, value) for block in BLOCKS for option in options_of(block) for value in LEGAL.get(option, [])
]


@pytest.mark.parametrize(("block", "option", "value"), CASES)
def test_a_block_keeps_the_contract(block: str, option: str | None, value: Any) -> None:
    options = given(block, **({} if option is None else {option: value}))
    check_options(block, options)
    possible = [place for place in PLACES if problem(block, *place, options) is None]
    assert possible, "no place to test this at"
    for place in possible if option is None else possible[:2]:
        in_channels, out_channels, stride, resolution = place
        module = alive(make(block, *place, options))
        assert isinstance(module, BLOCKS[block])
        x = torch.randn(4, in_channels, resolution, resolution, requires_grad=True)
        before = x.detach().clone()
        y = module(x)
        side = -(-resolution // stride)
        assert y.shape == ((4, out_channels) if block == "classifier" else (4, out_channels, side, side))
        assert torch.equal(x, before), "it writes into its input"
        (y * torch.randn_like(y)).sum().backward()
        assert x.grad is not None and x.grad.any()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            # What a bias adds, the normalisation behind it takes away.
            idle = bool(options.get("bias")) and name.endswith("bias") and parameter.grad.abs().max() < 1e-3
            assert parameter.grad.isfinite().all() and (idle or parameter.grad.any()), name
        module.eval()
        with torch.no_grad():
            assert torch.equal(module(x), module(x))
            assert torch.allclose(module(x)[:1], module(x[:1]), atol=1e-5), "images are not independent"


@pytest.mark.parametrize("block", BLOCKS)
def test_the_options_are_what_the_signature_says(block: str) -> None:
    kind = BLOCKS[block]
    assert issubclass(kind, Block) and not kind.__subclasses__()
    place, options = [], {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options[name] = None if parameter.default is inspect.Parameter.empty else parameter.default
            assert parameter.annotation is not inspect.Parameter.empty, name
        else:
            place.append(name)
    assert place == ["in_channels", "out_channels", "stride", "resolution"]
    assert list(options_of(block)) == list(options) and defaults_of(block) == options
    assert not set(options) & {"block", "c", "n", "s", "scale"}, "taken by the row"
    assert (kind.__doc__ or "").strip()


@pytest.mark.parametrize("block", BLOCKS)
def test_defaults_are_legal_and_required_options_are_always_used(block: str) -> None:
    for name, default in defaults_of(block).items():
        if default is None:
            assert BLOCKS[block].used(name, defaults_of(block))
        else:
            check_options(block, given(block, **{name: default}))


def test_an_option_has_one_meaning_in_all_blocks() -> None:
    kinds: dict[str, Any] = {}
    for block in BLOCKS:
        for name, option in options_of(block).items():
            assert isinstance(option, Option)
            assert kinds.setdefault(name, option.kind) == option.kind, (block, name)
    assert set(kinds) == set(LEGAL) == set(ILLEGAL)


@pytest.mark.parametrize(
    ("block", "option", "value"),
    [(block, option, value) for block in BLOCKS for option in options_of(block) for value in ILLEGAL.get(option, [])],
)
def test_an_illegal_value_is_refused_in_one_line(block: str, option: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        make(block, *PLACES[0], given(block, **{option: value}))
    line = str(caught.value)
    assert line.startswith(f"{block}.{option} is {value!r}, but must be ") and "\n" not in line


@pytest.mark.parametrize(("block", "options"), [("cse", {"t": 100, "k": 99, "cap": 100_000}), ("classifier", {})])
def test_the_largest_values_are_legal(block: str, options: dict[str, Any]) -> None:
    check_options(block, options)


@pytest.mark.parametrize(
    ("block", "options", "line"),
    [
        (
            "mbcnv",
            {},
            "block is 'mbcnv', but must be one of: bottleneck, classifier, conv, cse, fused_bottleneck, identity, "
            "maxpool, ",
        ),
        ("bottleneck", {}, "bottleneck.t is missing"),
        ("shuffle", {"k": 5}, "shuffle.groups is missing"),
        ("separable", {"t": 6}, "t is not an option of separable; its options are: k, activation"),
        ("identity", {"k": 3}, "k is not an option of identity; it has no options"),
    ],
)
def test_unknown_and_missing_names_are_refused(block: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        make(block, *PLACES[0], options)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("block", BLOCKS)
def test_used_says_which_options_make_a_difference(block: str, groups: int) -> None:
    base = {**defaults_of(block), **given(block)} | ({"groups": groups} if "groups" in options_of(block) else {})
    for name in options_of(block):
        networks = {
            repr(make(block, *PLACES[0], options))
            for value in LEGAL[name]
            if problem(block, *PLACES[0], options := base | {name: value}) is None
        }
        assert (len(networks) > 1) == BLOCKS[block].used(name, base), name


IMPOSSIBLE: list[tuple[str, tuple[int, int, int, int], dict[str, Any], str]] = [
    ("conv", (9, 8, 1, 8), {"groups": 2}, "groups=2 does not divide the 9 input channels"),
    ("conv", (8, 9, 1, 8), {"groups": 2}, "groups=2 does not divide the 9 output channels"),
    ("bottleneck", (9, 8, 1, 8), {"t": 2, "groups": 2}, "groups=2 does not divide the 9 input channels"),
    ("bottleneck", (6, 8, 1, 8), {"t": 1.5, "groups": 2}, "groups=2 does not divide the 9 expanded channels"),
    ("bottleneck", (8, 9, 1, 8), {"t": 2, "groups": 2}, "groups=2 does not divide the 9 output channels"),
    ("cse", (9, 8, 1, 8), {"t": 2, "groups": 2}, "groups=2 does not divide the 9 input channels"),
    ("cse", (6, 8, 1, 8), {"t": 1.5, "groups": 2}, "groups=2 does not divide the 9 expanded channels"),
    ("cse", (8, 24, 1, 8), {"t": 2}, "the 16 expanded channels are fewer than the 24 output channels"),
    ("shuffle", (16, 16, 2, 8), {"groups": 1}, "it concatenates, so c=16 must exceed the 16 input channels"),
    ("shuffle", (24, 16, 1, 8), {"groups": 1}, "it concatenates, so c=16 must exceed the 24 input channels"),
    ("shuffle", (8, 18, 2, 8), {"groups": 1}, "ratio=4 does not divide the 18 output channels"),
    ("shuffle", (8, 24, 2, 8), {"groups": 3}, "groups=3 does not divide the 8 input channels"),
    ("shuffle", (9, 24, 2, 8), {"groups": 4, "dense": True}, "groups=4 does not divide the 6 bottleneck channels"),
    ("shuffle", (9, 24, 2, 8), {"groups": 2, "dense": True}, "groups=2 does not divide the 15 made channels"),
    ("maxpool", (8, 16, 2, 8), {}, "it keeps the channels, so c=16 must be the 8 input channels"),
    ("classifier", (8, 10, 2, 8), {}, "it sees the whole image at once, so s=2 must be 1"),
]


@pytest.mark.parametrize(("block", "place", "options", "reason"), IMPOSSIBLE)
def test_an_impossible_combination_is_refused_with_its_reason(
    block: str, place: tuple[int, int, int, int], options: dict[str, Any], reason: str
) -> None:
    assert problem(block, *place, options) == reason
    with pytest.raises(InputError, match="^" + block) as caught:
        make(block, *place, options)
    assert str(caught.value) == f"{block}{place[1]}: {reason}"


def test_what_is_not_refused_can_be_built() -> None:
    for block in BLOCKS:
        for groups in (1, 3):
            for in_channels, out_channels in ((12, 12), (12, 24), (9, 18), (7, 5)):
                for stride in (1, 2):
                    options = given(block, **({"groups": groups} if "groups" in options_of(block) else {}))
                    place = in_channels, out_channels, stride, 5
                    if problem(block, *place, options) is None:
                        assert make(block, *place, options)(torch.randn(2, in_channels, 5, 5)).shape[1] == out_channels


# --- each block against something that is not ours


@pytest.mark.parametrize(
    ("i", "o", "s", "t"), [(16, 24, 2, 6), (24, 24, 1, 6), (24, 24, 2, 3), (32, 16, 1, 1), (8, 8, 1, 1)]
)
def test_bottleneck_is_torchvisions_inverted_residual(i: int, o: int, s: int, t: int) -> None:
    ours, theirs = make("bottleneck", i, o, s, 9, {"t": t}), stir(InvertedResidual(i, o, s, t))
    copy_weights(theirs, ours)
    x = torch.randn(3, i, 9, 9)
    for training in (False, True):
        difference = ours.train(training)(x) - theirs.train(training)(x)
        assert difference.abs().max() <= 1e-6


@pytest.mark.parametrize(("i", "o", "s", "t", "k"), [(24, 40, 2, 3, 5), (40, 40, 1, 3, 5), (16, 16, 2, 1, 3)])
@pytest.mark.parametrize("activation", ["relu", "hardswish"])
def test_bottleneck_with_squeeze_and_excitation_is_torchvisions(
    i: int, o: int, s: int, t: int, k: int, activation: str
) -> None:
    ours = make("bottleneck", i, o, s, 9, {"t": t, "k": k, "se": 0.25, "activation": activation})
    config = InvertedResidualConfig(i, k, i * t, o, True, "HS" if activation == "hardswish" else "RE", s, 1, 1.0)
    theirs = stir(InvertedResidualV3(config, nn.BatchNorm2d))
    copy_weights(theirs, ours)
    x = torch.randn(3, i, 9, 9)
    for training in (False, True):
        difference = ours.train(training)(x) - theirs.train(training)(x)
        assert difference.abs().max() <= 1e-6


@pytest.mark.parametrize(("i", "o", "s", "t"), [(16, 24, 2, 4), (24, 24, 1, 4), (24, 24, 1, 1), (16, 24, 1, 1)])
def test_fused_bottleneck_is_torchvisions_fused_mbconv(i: int, o: int, s: int, t: int) -> None:
    ours = make("fused_bottleneck", i, o, s, 9, {"t": t, "activation": "silu"})
    theirs = stir(FusedMBConv(FusedMBConvConfig(t, 3, s, i, o, 1), 0.0, nn.BatchNorm2d))
    copy_weights(theirs, ours)
    x = torch.randn(3, i, 9, 9)
    for training in (False, True):
        difference = ours.train(training)(x) - theirs.train(training)(x)
        assert difference.abs().max() <= 1e-6


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """By place: the names differ."""
    values, state = list(source.state_dict().values()), target.state_dict()
    assert [v.shape for v in values] == [v.shape for v in state.values()]
    target.load_state_dict(dict(zip(state, values, strict=True)))


def test_the_whole_mobilenet_v2_is_torchvisions() -> None:
    space = Space.load(SPACES / "mobilenet_v2.yaml")
    architecture = next(
        member for member in space.enumerate() if member.resolution == 96 and space.encode(member)["width"] == 0.35
    )
    ours, theirs = build(architecture).eval(), stir(mobilenet_v2(width_mult=0.35)).eval()
    copy_weights(theirs, ours)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        y = theirs(x)
        assert (ours(x) - y).abs().max() <= 1e-5 * y.abs().max()


@pytest.mark.parametrize(("i", "o", "t", "shortcut"), [(8, 8, 2, True), (8, 16, 2, False), (8, 8, 1, True)])
@pytest.mark.parametrize("block", ["bottleneck", "cse"])
def test_the_shortcut_is_only_at_stride_1_and_equal_channels(
    block: str, i: int, o: int, t: int, shortcut: bool
) -> None:
    for stride in (1, 2):
        module = stir(make(block, i, o, stride, 6, {"t": t})).eval()
        assert isinstance(module, Bottleneck | CSE)
        x = torch.randn(2, i, 6, 6)
        plain = module.layers(x)
        if block == "cse":
            plain = plain.reshape(2, o, -1, *plain.shape[2:]).mean(2)
        assert torch.allclose(module(x), x + plain if shortcut and stride == 1 else plain, atol=1e-6)


def test_where_a_bottleneck_has_its_shortcut() -> None:
    x = torch.randn(2, 8, 6, 6)

    def bottleneck(o: int, stride: int, shortcut: str, t: int = 2) -> Bottleneck:
        module = stir(make("bottleneck", 8, o, stride, 6, {"t": t, "shortcut": shortcut})).eval()
        assert isinstance(module, Bottleneck)
        return module

    for o, stride in [(8, 1), (16, 1), (8, 2)]:
        none = bottleneck(o, stride, "none")
        assert torch.equal(none(x), none.layers(x))
        projected = bottleneck(o, stride, "projection")
        assert (projected.shortcut is None) == (stride == 2)
        if projected.shortcut is not None:
            assert sum(p.numel() for p in projected.shortcut.parameters()) == (8 * 16 + 32) * (o == 16)
            assert torch.equal(projected(x), projected.shortcut(x) + projected.layers(x))
        expansion = bottleneck(o, stride, "expansion")
        expand, depthwise, project = expansion.layers[:3], expansion.layers[3], expansion.layers[4:]
        if stride == 1:
            y = expand(x)
            assert torch.equal(expansion(x), project(y + nn.Sequential(*depthwise)(y)))
        else:
            assert torch.equal(expansion(x), expansion.layers(x)) and isinstance(depthwise, nn.Conv2d)


def test_a_bottleneck_expands_at_t_1_if_asked_and_no_space_asks_elsewhere() -> None:
    counts = [len(make("bottleneck", 8, 8, 1, 6, {"t": 1, "expand": expand}).layers) for expand in (False, True)]
    assert counts == [5, 8]
    assert Bottleneck.used("expand", {"t": 1}) and not Bottleneck.used("expand", {"t": 2})


def test_the_projection_of_a_bottleneck_is_linear_if_wanted() -> None:
    names = {
        linear: [type(part).__name__ for part in make("bottleneck", 8, 16, 1, 6, {"t": 2, "linear": linear}).layers]
        for linear in (True, False)
    }
    assert names[True] == ["Conv2d", "BatchNorm2d", "ReLU6"] * 2 + ["Conv2d", "BatchNorm2d"]
    assert names[False] == [*names[True], "ReLU6"]


def test_groups_and_shuffle_of_a_bottleneck_stand_where_the_paper_puts_them() -> None:
    *parts, _ = make("bottleneck", 8, 16, 1, 6, {"t": 2, "groups": 4}).layers
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    assert [conv.groups for conv in convolutions] == [4, 16, 4]
    place = next(i for i, part in enumerate(parts) if isinstance(part, ChannelShuffle))
    assert parts.index(convolutions[0]) < place < parts.index(convolutions[1])
    for options in ({"groups": 1}, {"groups": 4, "shuffle": False}):
        module = make("bottleneck", 8, 16, 1, 6, {"t": 2, **options})
        assert not any(isinstance(part, ChannelShuffle) for part in module.modules())


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.BatchNorm2d)
    mean, var = layer.running_mean, layer.running_var
    assert mean is not None and var is not None
    x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + layer.eps)
    return x * layer.weight[:, None, None] + layer.bias[:, None, None]


def weights(module: nn.Module) -> list[nn.Module]:
    """Its convolutions and normalisations, in order."""
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]


@pytest.mark.parametrize(("k", "s", "activation"), [(3, 1, "relu"), (5, 2, "silu")])
def test_separable_is_depthwise_then_pointwise(k: int, s: int, activation: str) -> None:
    module = stir(make("separable", 6, 10, s, 7, {"k": k, "activation": activation})).eval()
    depthwise, norm_1, pointwise, norm_2 = weights(module)
    assert depthwise.weight.shape == (6, 1, k, k) and pointwise.weight.shape == (10, 6, 1, 1)
    act = ACTIVATIONS[activation]()
    x = torch.randn(2, 6, 7, 7)
    # Depthwise: channel by channel. Pointwise: a matrix on the channels of each pixel.
    y = torch.cat([F.conv2d(x[:, [i]], depthwise.weight[[i]], stride=s, padding=k // 2) for i in range(6)], dim=1)
    y = act(norm(y, norm_1))
    y = act(norm(torch.einsum("oi,bihw->bohw", pointwise.weight[:, :, 0, 0], y), norm_2))
    assert torch.allclose(module(x), y, atol=1e-5)


@pytest.mark.parametrize(("groups", "size"), [(1, 4), (2, 3), (3, 2), (4, 1), (3, 5)])
def test_channel_shuffle_by_index(groups: int, size: int) -> None:
    x = torch.randn(2, groups * size, 3, 2)
    y = ChannelShuffle(groups)(x)
    for group in range(groups):
        for place in range(size):
            # Channel `place` of group `group` becomes channel `group` of group `place`.
            assert torch.equal(y[:, place * groups + group], x[:, group * size + place])


@pytest.mark.parametrize(
    ("i", "o", "s", "dense"), [(24, 24, 1, False), (8, 24, 2, False), (5, 11, 1, True), (8, 24, 3, True)]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_shufflenet_unit(i: int, o: int, s: int, dense: bool, shuffle: bool) -> None:
    groups, ratio = (1, 1) if o == 11 else (2, 4)
    options = {"groups": groups, "dense": dense, "shuffle": shuffle, "ratio": ratio}
    module = stir(make("shuffle", i, o, s, 7, options)).eval()
    first, norm_1, depthwise, norm_2, last, norm_3 = weights(module)
    concatenates = s > 1 or i != o
    bottleneck, made = o // ratio, o - i if concatenates else o
    assert first.weight.shape == (bottleneck, i // (1 if dense else groups), 1, 1)
    assert depthwise.weight.shape == (bottleneck, 1, 3, 3)
    assert last.weight.shape == (made, bottleneck // groups, 1, 1)
    x = torch.randn(2, i, 7, 7)
    y = F.relu(norm(F.conv2d(x, first.weight, groups=1 if dense else groups), norm_1))
    if shuffle:
        order = [g * (bottleneck // groups) + j for j in range(bottleneck // groups) for g in range(groups)]
        y = y[:, order]
    y = norm(F.conv2d(y, depthwise.weight, stride=s, padding=1, groups=bottleneck), norm_2)  # no activation behind it
    y = norm(F.conv2d(y, last.weight, groups=groups), norm_3)
    if concatenates:
        beside = F.avg_pool2d(x, 3, s, padding=1) if s > 1 else x
        y = torch.cat([beside, y], dim=1)
    else:
        y = x + y
    assert torch.allclose(module(x), F.relu(y), atol=1e-5)


Array = NDArray[np.float64]


def naive_gate(x: Array, module: ChannelwiseSE) -> Array:
    """Figure 1 of the CSE paper, one image, pixel by pixel."""
    first, _, second, _ = module.gate
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    channels, height, width = x.shape
    squeezed = [sum(x[c, h, w] for c in range(channels)) / channels for h in range(height) for w in range(width)]
    reduced = np.maximum(0, first.weight.double().numpy() @ squeezed + first.bias.double().numpy())
    scaled = 1 / (1 + np.exp(-(second.weight.double().numpy() @ reduced + second.bias.double().numpy())))
    out = np.empty_like(x)
    for c in range(channels):  # stacked: the same for all channels
        for h in range(height):
            for w in range(width):
                out[c, h, w] = x[c, h, w] * scaled[h * width + w]
    return out


def naive_mean(x: Array, channels: int) -> Array:
    """Output i is the mean of the expanded channels from floor(i * n / o) to ceil((i + 1) * n / o)."""
    n = len(x)
    return np.stack([x[i * n // channels : -(-(i + 1) * n // channels)].mean(axis=0) for i in range(channels)])


@pytest.mark.parametrize(
    ("i", "o", "s", "options"),
    [
        (6, 6, 1, {"t": 2}),
        (6, 4, 2, {"t": 2, "cap": 2, "reduction": 5}),
        (6, 9, 1, {"t": 1.5}),
        (6, 5, 1, {"t": 2}),  # 12 channels onto 5
        (6, 8, 2, {"t": 2, "groups": 3, "norm": "each"}),  # 12 onto 8
        (6, 10, 1, {"t": 1, "stack": True}),  # 6 onto 10
    ],
)
@torch.no_grad()
def test_cse_is_the_naive_numpy_version(i: int, o: int, s: int, options: dict[str, Any]) -> None:
    module = stir(make("cse", i, o, s, 5, options)).eval()
    assert isinstance(module, CSE)
    *before, gate = module.layers
    assert isinstance(gate, ChannelwiseSE)
    for part in gate.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    x = torch.randn(2, i, 5, 5)
    hidden = nn.Sequential(*before)(x).double().numpy()
    assert hidden.shape[1] == round(i * options["t"])
    expected = np.stack([naive_mean(naive_gate(image, gate), o) for image in hidden])
    if s == 1 and i == o:
        expected += x.double().numpy()
    assert np.abs(module(x).numpy() - expected).max() < 1e-5


def test_the_parameters_of_cse_depend_on_the_resolution_alone() -> None:
    def gate_params(channels: int, resolution: int, **options: Any) -> int:
        module = make("cse", channels, channels, 1, resolution, {"t": 2, **options})
        return sum(p.numel() for part in module.modules() if isinstance(part, ChannelwiseSE) for p in part.parameters())

    for resolution, reduction, cap in ((8, 16, 16), (8, 2, 16), (4, 16, 3), (7, 16, 1)):
        pixels = resolution**2
        r = max(pixels // reduction, cap)
        for channels in (4, 32):
            assert gate_params(channels, resolution, reduction=reduction, cap=cap) == 2 * pixels * r + r + pixels


def test_norm_each_has_one_normalisation_more() -> None:
    found = {
        norm: [type(part).__name__ for part in make("cse", 4, 8, 1, 6, {"t": 2, "norm": norm}).layers]
        for norm in ("pair", "each")
    }
    assert found["pair"] == ["Conv2d", "ReLU6", "Conv2d", "BatchNorm2d", "ReLU6", "ChannelwiseSE"]
    assert found["each"] == ["Conv2d", "BatchNorm2d", *found["pair"][1:]]


def test_identity_is_nothing_or_one_convolution() -> None:
    x = torch.randn(2, 8, 5, 5)
    assert make("identity", 8, 8, 1, 5, {})(x) is x
    for out_channels, stride in ((16, 1), (8, 2)):
        module = stir(make("identity", 8, out_channels, stride, 5, {})).eval()
        conv, batch_norm = weights(module)
        assert conv.weight.shape == (out_channels, 8, 1, 1)
        assert torch.allclose(module(x), norm(F.conv2d(x, conv.weight, stride=stride), batch_norm), atol=1e-6)


@pytest.mark.parametrize(("k", "s", "side"), [(3, 2, 6), (3, 2, 7), (5, 1, 4), (2 * 7 + 1, 3, 2)])
def test_maxpool_is_the_largest_pixel_in_reach(k: int, s: int, side: int) -> None:
    x = torch.randn(2, 3, side, side)
    y = make("maxpool", 3, 3, s, side, {"k": k})(x)
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            rows, columns = (slice(max(0, at * s - k // 2), at * s + k // 2 + 1) for at in (row, column))
            assert torch.equal(y[:, :, row, column], x[:, :, rows, columns].amax((2, 3)))


def test_classifier_is_the_mean_and_a_linear_layer() -> None:
    module = make("classifier", 8, 3, 1, 5, {"dropout": 0.5})
    linear = next(part for part in module.modules() if isinstance(part, nn.Linear))
    x = torch.randn(4, 8, 5, 5)
    assert torch.allclose(module.eval()(x), x.mean((2, 3)) @ linear.weight.T + linear.bias, atol=1e-6)
    assert not torch.equal(module.train()(x), module(x))
    without = make("classifier", 8, 3, 1, 5, {"bias": False})
    assert [name for name, _ in without.named_parameters()] == ["layers.3.weight"]


# --- networks


def small(*rows: Stage, resolution: int = 9) -> Architecture:
    return Architecture((*rows, Stage.of("classifier", 4)), resolution)


def test_a_network_has_its_architectures_layers() -> None:
    architecture = small(Stage.of("conv", 8), Stage.of("identity", 8, n=2), Stage.of("cse", 12, n=2, s=2, t=3))
    network = build(architecture)
    assert network.architecture == architecture
    for module, layer in zip(network.layers, architecture.layers, strict=True):
        assert type(module) is BLOCKS[layer.block] and isinstance(module, Block)
        place = (module.in_channels, module.out_channels, module.stride, module.resolution)
        assert place == (layer.in_channels, layer.out_channels, layer.stride, layer.resolution)
    assert network(torch.randn(2, 3, 9, 9)).shape == (2, 4)


def test_a_seed_names_the_weights_and_leaves_the_global_generator_alone() -> None:
    architecture = small(Stage.of("bottleneck", 8, n=2, t=2))
    state = torch.get_rng_state()
    one, again, other = (build(architecture, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(one[name].data_ptr() != again[name].data_ptr() for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_weights_start_as_documented() -> None:
    rows = Stage.of("conv", 64, k=3), Stage.of("separable", 256), Stage.of("conv", 256, k=1, bias=True)
    network = build(small(*rows, resolution=4), seed=0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.bias is None or not module.bias.any()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
            assert abs(module.weight.mean().item()) < 0.1 * module.weight.std().item()
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1) and not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([Stage.of("mbcnv", 8)], "block is 'mbcnv', but must be one of: bottleneck, classifier, conv, "),
        ([Stage.of("conv", 8, kk=3)], "kk is not an option of conv; its options are: k, groups, activation"),
        ([Stage.of("conv", 8, k=4)], "conv.k is 4, but must be an odd number"),
        ([Stage.of("conv", 8, activation="gelu")], "conv.activation is 'gelu', but must be one of: relu, "),
        ([Stage.of("bottleneck", 8)], "bottleneck.t is missing"),
        ([Stage.of("conv", 8), Stage.of("cse", 24, t=2)], "cse24: the 16 expanded channels are fewer than the 24 "),
        ([Stage.of("classifier", 8)], "its last layer, and only that, must be a classifier"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(rows: list[Stage], line: str) -> None:
    architecture = small(*rows)
    with pytest.raises(InputError) as caught:
        build(architecture)
    assert str(caught.value).startswith(f"architecture {architecture.id}: {line}") and "\n" not in str(caught.value)


def test_a_block_whose_output_has_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind it would be counted at a size that it does not have."""

    class Unpadded(Block):
        def __init__(self, in_channels: int, out_channels: int, stride: int, resolution: int) -> None:
            super().__init__(in_channels, out_channels, stride, resolution)
            self.conv = nn.Conv2d(in_channels, out_channels, 3, stride)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)  # type: ignore[no-any-return]

    monkeypatch.setitem(BLOCKS, "unpadded", Unpadded)
    with pytest.raises(InputError) as error:
        trace_layer(Layer("unpadded", 3, 8, 2, 32))
    assert str(error.value) == (
        "block unpadded behind 3 channels of 32 pixels: the output's shape, at stride 2, is [1, 8, 15, 15], but must "
        "be [1, 8, 16, 16]"
    )


def test_a_block_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^block is 'ghost', but must be one of: .*; one of your own must be "):
        options_of("ghost")


@pytest.mark.parametrize("last", [Stage.of("conv", 8), Stage.of("classifier", 8, n=2), Stage.of("classifier", 8, n=0)])
def test_a_network_ends_with_its_classifier(last: Stage) -> None:
    with pytest.raises(InputError, match="its last layer, and only that, must be a classifier"):
        build(Architecture((Stage.of("conv", 8), last), 8))

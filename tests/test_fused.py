"""The training kernels against torch: outputs, gradients, running statistics, and what they leave behind."""

from __future__ import annotations

import copy
import math
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas import fused as module
from nas.architecture import Architecture
from nas.fused import fused, kernels
from nas.network import build
from nas.space import Space

SPACE = Path(__file__).parent.parent / "search_spaces" / "mobile_cifar.yaml"
needs_kernels = pytest.mark.skipif(kernels() is None, reason="no C++ compiler to make the kernels with")


def images(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5
    return x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def stepped(network: nn.Module, x: Tensor, stand_in: bool) -> dict[str, Tensor]:
    """Output, gradients and buffers after a step of training of a copy, in float64 where torch alone computes."""
    network = copy.deepcopy(network).train()
    if not stand_in:
        network, x = network.double(), x.detach().double().requires_grad_()
    with fused(network if stand_in else nn.Identity()):
        y = network(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(y, [x, *network.parameters()], dy.to(y.dtype))
    buffers = {f"buffer {name}": value for name, value in network.named_buffers()}
    names = ["input", *dict(network.named_parameters())]
    return {"output": y, **dict(zip(names, gradients, strict=True)), **buffers}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Root mean square difference relative to the root mean square, of every tensor."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        difference = (ours[name].double() - value.double()).square().mean().sqrt()
        scale = value.double().square().mean().sqrt()
        assert difference <= tolerance * scale + 1e-6, f"{name}: {difference / scale:.1e}"


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
@pytest.mark.parametrize("shape", [(8, 24, 7, 7), (3, 1, 5, 4), (2, 39, 3, 3), (16, 17, 1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 8e-2)])
def test_norm_and_activation(
    activation: type[nn.Module] | None, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, threads: int
) -> None:
    norm, random = nn.BatchNorm2d(shape[1], momentum=0.3), torch.Generator().manual_seed(2)
    nn.init.uniform_(norm.weight, 0.5, 3.0, generator=random)
    nn.init.normal_(norm.bias, generator=random)
    network = nn.Sequential(norm, *([activation()] if activation else []))
    x = images(*shape, dtype=dtype)
    assert_close(stepped(network, x, stand_in=True), stepped(network, x, stand_in=False), tolerance)


@needs_kernels
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
@pytest.mark.parametrize("size", [(8, 24, 9, 9), (3, 17, 6, 5), (2, 40, 2, 1), (5, 16, 1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 5e-3)])
def test_depthwise(
    k: int, stride: int, size: tuple[int, ...], dtype: torch.dtype, tolerance: float, threads: int
) -> None:
    network = nn.Conv2d(size[1], size[1], k, stride, k // 2, groups=size[1], bias=False)
    x = images(*size, dtype=dtype)
    if dtype == torch.bfloat16 and k == 7:
        network = network.to(dtype)
    assert_close(stepped(network, x, stand_in=True), stepped(network, x, stand_in=False), tolerance)


@cache
def architectures() -> list[Architecture]:
    import random

    space, draw = Space.load(SPACE), random.Random(0)
    return [space.sample(draw) for _ in range(6)]


@needs_kernels
@pytest.mark.parametrize("number", range(6))
def test_a_network_of_every_kind_of_block(number: int) -> None:
    """Torch's own float32 against float64 says how far apart rounding may take a deep network."""
    network = build(architectures()[number], seed=0).to(memory_format=torch.channels_last)
    network.layers[-1].eval()  # its dropout would draw
    for dropout in (x for x in network.modules() if isinstance(x, nn.Dropout)):
        dropout.p = 0.0
    x = images(8, 3, 32, 32)
    exact = stepped(network, x, stand_in=False)
    ours = stepped(network, x, stand_in=True)
    plain = copy.deepcopy(network).train()
    plain(x)
    y = plain(x)
    assert (ours["output"] - exact["output"]).abs().max() <= 1e-4 + 10 * (y - exact["output"]).abs().max()
    assert_close(ours, exact, 0.02)


@needs_kernels
def test_not_a_number_stays_one() -> None:
    for activation in (nn.ReLU(), nn.ReLU6(), nn.Hardswish()):
        network = nn.Sequential(nn.BatchNorm2d(16), activation).train()
        x = images(4, 16, 2, 2).detach()
        x[0, 3, 0, 0] = math.nan
        with fused(network):
            y = network(x.requires_grad_())
        assert y[:, 3].isnan().all()
        assert not y[:, :3].isnan().any()


@needs_kernels
def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False))
    x = images(3, 5, 2, 2)
    with pytest.raises(RuntimeError, match="4"), fused(network):
        network(x)
    with fused(network):
        assert all("forward" in vars(part) for part in network)
    assert not any("forward" in vars(part) for part in network)


@needs_kernels
def test_evaluation_and_no_grad_are_torchs() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Hardswish())
    x = images(3, 4, 5, 5)
    for train, grad in ((False, True), (True, False)):
        expected = copy.deepcopy(network).train(train)
        network.train(train)
        with torch.set_grad_enabled(grad), fused(network):
            assert torch.equal(network(x), expected(x))


@needs_kernels
def test_weights_in_bfloat16_are_torchs() -> None:
    depthwise = nn.Conv2d(40, 40, 3, padding=1, groups=40, bias=False)
    network = nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), depthwise).bfloat16()
    x = images(3, 40, 5, 5, dtype=torch.bfloat16)
    expected = copy.deepcopy(network)(x)
    with fused(network):
        y = network(x)
    assert torch.equal(y, expected) and y.grad_fn is not None and type(y.grad_fn) is type(expected.grad_fn)


@needs_kernels
def test_the_default_type_makes_no_difference() -> None:
    network, x = nn.Sequential(nn.BatchNorm2d(40)).train(), images(3, 40, 5, 5)
    expected = stepped(network, x, stand_in=True)
    torch.set_default_dtype(torch.float64)
    try:
        found = stepped(network, x, stand_in=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(found[name], expected[name]) for name in ("output", "buffer 0.running_mean"))


@needs_kernels
def test_the_number_of_threads_is_torchs_whatever_the_compilers_openmp_has(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = nn.Sequential(nn.BatchNorm2d(24)), images(8, 24, 7, 7)
    outputs, before = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        outputs.append(stepped(network, x, stand_in=True)["output"])
    torch.set_num_threads(before)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 3)
    found = stepped(network, x, stand_in=True)["output"]
    assert torch.equal(found, outputs[1]) and not torch.equal(found, outputs[0])


@needs_kernels
def test_frozen_parts_and_an_input_without_gradient() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Hardswish()).train().requires_grad_(False)
    x = images(3, 4, 5, 5).detach()
    expected = copy.deepcopy(network)(x)
    with fused(network):
        assert torch.allclose(network(x), expected, atol=1e-5)


class Twice(nn.Module):
    """An activation behind a batch normalisation that is used a second time, where nobody sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU6()
        self.body = nn.Sequential(nn.BatchNorm2d(6), self.act)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x + self.body(x))
        return y


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


SHARED = nn.Hardswish()


@needs_kernels
@pytest.mark.parametrize(
    "network",
    [
        Twice(),
        Standardised(6, 6, 3, padding=1, groups=6),
        nn.Sequential(Doubled(6), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(6), SHARED, nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), SHARED),
    ],
    ids=["twice", "convolution", "norm", "shared"],
)
def test_foreign_blocks_do_what_they_say(network: nn.Module) -> None:
    x = images(4, 6, 5, 5)
    expected = copy.deepcopy(network).train()(x)
    with fused(network.train()):
        assert torch.allclose(network(x), expected, atol=1e-5)
    assert not any("forward" in vars(part) for part in network.modules())


@needs_kernels
def test_a_gradient_of_a_gradient_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4)).train()
    x = images(3, 4, 5, 5)
    with fused(network):
        (first,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    kernels.cache_clear()
    yield
    kernels.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_FUSED", "0")
    assert kernels() is None
    network = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    with fused(network):
        assert "forward" not in vars(network[0])


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_fails_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    assert kernels() is None
    assert "ended with 3: no such luck" in caplog.text
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_hangs_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def hang(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("c++", 300)

    monkeypatch.setattr(module.shutil, "which", lambda name: name or None)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.subprocess, "run", hang)
    assert kernels() is None
    assert "timed out" in caplog.text

"""Zero-cost scores: what can be computed by hand, and the contract that every score of the table keeps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.architecture import Architecture, Stage
from nas.blocks import make
from nas.network import Network, build
from nas.scores import SCORES, score
from nas.scores.jacobian import K, correlation_score, jacobian_covariance
from nas.scores.naswot import log_determinant, naswot
from nas.scores.synflow import synflow
from nas.scores.zen import WithoutShortcuts, zen

BLOCKS: dict[str, dict[str, float]] = {
    "bottleneck": {"t": 2},
    "cse": {"t": 2},
    "separable": {},
    "shuffle": {"groups": 2},
}


def network(block: str = "bottleneck", c: int = 16, **options: object) -> Architecture:
    rows = (Stage.of("conv", 16, s=2), Stage.of(block, c + 16, n=2, s=2, **BLOCKS[block] | options))
    return Architecture((*rows, Stage.of("classifier", 10, dropout=0.5)), 16, 3)


def images(count: int = 12, size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


# Every score


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_finite_seeded_and_leaves_all_as_it_was(name: str, block: str) -> None:
    subject, batch = build(network(block), seed=3).eval(), images()
    before, seen, random = copy.deepcopy(subject.state_dict()), batch.clone(), torch.get_rng_state()
    found = score(name, subject, batch, seed=3)
    assert math.isfinite(found) and found == score(name, subject, batch, seed=3) == score(
        name, network(block), batch, 3
    )
    assert not subject.training and all(x.requires_grad and x.grad is None for x in subject.parameters())
    assert all(torch.equal(value, before[key]) for key, value in subject.state_dict().items())
    assert torch.equal(batch, seen) and torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"jacob_cov", "depth"}))
def test_a_wider_network_scores_more(name: str) -> None:
    narrow, middle, wide = (score(name, network(c=c), images(), seed=1) for c in (8, 32, 128))
    assert narrow < middle < wide


def test_what_depends_on_the_seed() -> None:
    moved = {name for name in SCORES if score(name, network(), images(), 0) != score(name, network(), images(), 1)}
    assert moved == {"synflow", "naswot", "jacob_cov", "zen"}


def test_what_is_not_finite_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = build(network(), seed=0)
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    assert all(math.isnan(score(name, broken, images())) for name in ("synflow", "jacob_cov"))
    monkeypatch.setitem(SCORES, "naswot", lambda network, batch, seed: -math.inf)
    assert math.isnan(score("naswot", broken, images()))


# By hand


def test_synflow_is_the_product_formula() -> None:
    """Every layer has the whole flow: k layers give k times R."""
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU6(), nn.Linear(4, 2, bias=False))
    first, second = (abs(net[i].weight.detach().double().numpy()) for i in (0, 2))
    flow = (second @ first @ np.ones(3)).sum()
    assert synflow(net, torch.zeros(1, 3), 0) == pytest.approx(math.log(2 * flow))


def test_synflow_of_convolutions_skips_normalisation_and_saturation() -> None:
    first, second = nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 1, 2, bias=False)
    net = nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU6(inplace=True), second)
    with torch.no_grad():
        first.weight.fill_(-5.0)
        second.weight.fill_(7.0)
    # One pixel behind the first: 2 * 5; a pixel of the second sees 4 * 3 of them; of 3 x 3 pixels it has 2 x 2.
    assert synflow(net, torch.zeros(8, 2, 3, 3), 0) == pytest.approx(math.log(2 * (4 * 4 * 3 * 7 * 10)))


def test_naswot_of_a_matrix_made_by_hand() -> None:
    """Distances 1, 2 and 3 of four units: the kernel is [[4, 3, 2], [3, 4, 1], [2, 1, 4]]."""
    codes = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]]).bool()
    expected = np.linalg.slogdet([[4, 3, 2], [3, 4, 1], [2, 1, 4]])[1]
    assert log_determinant(codes) == pytest.approx(expected) == pytest.approx(math.log(4 * 15 - 3 * 10 + 2 * (3 - 8)))
    assert log_determinant(torch.ones(2, 5).bool()) == -math.inf


def test_naswot_reads_relu_and_relu6_and_nothing_else() -> None:
    batch = torch.tensor([[9.0, -1.0], [-1.0, 9.0], [9.0, 9.0]])
    for unit in (nn.ReLU(), nn.ReLU6(inplace=True)):
        codes = torch.tensor([[1, 0], [0, 1], [1, 1]]).bool()
        assert naswot(nn.Sequential(nn.Identity(), unit), batch.clone(), 0) == log_determinant(codes)
    rows = (Stage.of("conv", 8, activation="hardswish"), Stage.of("bottleneck", 8, t=2, activation="silu"))
    assert math.isnan(score("naswot", Architecture((*rows, Stage.of("classifier", 2)), 16, 3), images()))


def test_jacobian_of_rows_made_by_hand() -> None:
    apart = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 3.0, -3.0]]).double()
    assert correlation_score(apart) == pytest.approx(-2 * (math.log(1 + K) + 1 / (1 + K)))
    alike = torch.tensor([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]).double()
    expected = -(math.log(2 + K) + 1 / (2 + K) + math.log(K) + 1 / K)
    assert correlation_score(alike) == pytest.approx(expected)
    assert math.isnan(correlation_score(torch.ones(2, 3).double()))


def test_the_jacobian_is_that_of_the_sum_of_outputs() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([torch.autograd.functional.jacobian(lambda y: net(y).sum(), row) for row in x])
    assert jacobian_covariance(net, x, 0) == pytest.approx(correlation_score(rows.double()), rel=1e-3)


def test_zen_of_one_convolution() -> None:
    """Linear features: the difference is that of ALPHA e; one normalisation gives the deviation that it takes away."""
    plain = Architecture((Stage.of("conv", 4, k=1), Stage.of("classifier", 2)), 4, 1)
    subject = stripped(build(plain, 0), nn.BatchNorm2d, nn.ReLU6)
    batch = images(5, 4, 1)
    generator = torch.Generator().manual_seed(7)
    weight, _, e = (torch.randn(shape, generator=generator) for shape in ((4, 1, 1, 1), batch.shape, batch.shape))
    expected = math.log(0.01 * (weight.flatten().norm() * e.flatten(1).norm(dim=1)).mean().item())
    assert zen(subject, batch, 7) == pytest.approx(expected, rel=1e-4)


def test_zen_does_not_depend_on_the_scale_that_a_normalisation_takes_away() -> None:
    """log of the difference loses what log of the deviation gains, whatever the weights: here BN's own gain is 1."""
    subject = Network(Architecture((Stage.of("conv", 8), Stage.of("classifier", 2)), 8, 3)).train()
    x = images(64, 8)
    assert zen(stripped(subject, nn.ReLU6), x, 0) == pytest.approx(
        zen(stripped(subject, nn.ReLU6, nn.BatchNorm2d), x, 0), abs=0.15
    )


def stripped(network: Network, *kinds: type[nn.Module]) -> Network:
    """A copy without modules of these kinds."""
    network = copy.deepcopy(network)
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, nn.Identity())
    return network


@pytest.mark.parametrize(("block", "options"), BLOCKS.items())
def test_without_shortcuts_a_block_is_its_branch(block: str, options: dict[str, float]) -> None:
    """With the gain of all normalisations 0 nothing is left but what goes past them."""
    layer = make(block, 8, 8, 1, 4, options)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    x = images(3, 4, 8).abs()
    assert layer(x).any() == (block != "separable")
    with WithoutShortcuts():
        assert not layer(x).any()

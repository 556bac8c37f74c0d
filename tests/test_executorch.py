"""ExecuTorch: what it needs, what it has no operator for, and its one pool of threads. The rest is in the contracts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.deploy import export
from nas.export import EXPORTERS, executorch
from nas.export.graph import Unsupported
from nas.export.operators import channels_average
from nas.inputs import InputError
from nas.latency import RUNTIMES


@pytest.fixture
def installed() -> None:
    pytest.importorskip("executorch", reason="needs the extra executorch")


@pytest.mark.parametrize("check", [EXPORTERS["executorch"].check, RUNTIMES["executorch"].check])
def test_what_is_missing_is_named(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executorch", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert callable(check)
    with pytest.raises(InputError, match=r"ExecuTorch needs a package .*: pip install 'mobile-nas\[executorch\]'"):
        check()


def test_int8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--format is .executorch., but must be for --int8 one of: onnx"):
        export(tmp_path, form="executorch", int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("channels", "made"), [(8, 3), (3, 8), (6, 6), (12, 4)])
def test_the_average_over_channels_is_torchs(channels: int, made: int) -> None:
    x = torch.randn(2, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    wanted = nn.functional.adaptive_avg_pool3d(x[:, None], (made, 3, 3))[:, 0]
    found = nn.functional.conv2d(x, torch.from_numpy(channels_average(channels, made)))
    assert torch.allclose(wanted, found, atol=1e-6)


class Pooling(nn.Module):
    def __init__(self, pool: object) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        assert callable(self.pool)
        return self.pool(x[:, None], (2, 2, 2)).flatten(1)


def shaped_by_values(x: Tensor, size: object) -> Tensor:
    return x[x > 0]


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Pooling(nn.functional.adaptive_avg_pool3d),
            "operator adaptive_avg_pool3d cannot be exported to ExecuTorch but over channels",
        ),
        (Pooling(torch.ops.aten.adaptive_avg_pool3d), "no kernel for operator aten::_adaptive_avg_pool3d.out"),
        (Pooling(shaped_by_values), "ExecuTorch cannot lower it: "),
        (nn.Sequential(nn.BatchNorm2d(4)), "a network in training mode"),
    ],
    ids=["mode", "kernel", "values", "training"],
)
def test_what_has_no_operator_is_named(module: nn.Module, message: str) -> None:
    if "training" not in message:
        module.eval()
    with pytest.raises(Unsupported, match=message) as error:
        executorch.lowered(module, (4, 4, 4), {})
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_process_has_one_number_of_threads() -> None:
    """And networks that are open go on."""
    program = executorch.lowered(nn.Conv2d(3, 4, 1).eval(), (3, 4, 4), {})
    run = executorch.opened(program, 1)
    with pytest.raises(InputError, match="threads is 2, but must be 1: ExecuTorch has one number of threads"):
        executorch.opened(program, 2)
    del program
    assert run([torch.zeros(1, 3, 4, 4)])[0].shape == (1, 4, 4, 4)

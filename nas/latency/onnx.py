"""ONNX Runtime on the CPU: what `nas export` writes, run by one session with its default optimisations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from nas.export.int8 import quantised
from nas.export.model import INPUT, make_model
from nas.export.onnx import needed, open_session
from nas.latency.measure import RunOnce
from nas.latency.runtime import Runtime

_CALIBRATION = 4


def _model(module: nn.Module, shape: tuple[int, int, int]) -> Any:
    return make_model(module.eval(), torch.empty(1, *shape, device="meta"), {}, checked=False)


def _open(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    model = _model(module, shape)
    run = open_session(model.SerializeToString(), threads).run
    feeds = {INPUT: np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)}
    return lambda: run(None, feeds)


def _open_int8(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    """Calibrated on a few random images: how large activations get makes it neither faster nor slower."""
    model = _model(module, shape)
    images = np.random.default_rng(0).standard_normal((_CALIBRATION, *shape)).astype(np.float32)
    run, feeds = open_session(quantised(model, images), threads).run, {INPUT: images[:1]}
    return lambda: run(None, feeds)


_PACKAGES = ("onnx", "onnxruntime")
INT8 = Runtime(_PACKAGES, needed, True, _open_int8, precision="int8")
ONNXRUNTIME = Runtime(_PACKAGES, needed, True, _open)

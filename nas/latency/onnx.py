"""ONNX Runtime on the CPU: what `nas export` writes, run by one session with its default optimisations."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nas.export.model import INPUT, make_model
from nas.export.onnx import needed, open_session
from nas.latency.measure import RunOnce
from nas.latency.runtime import Runtime


def _open(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    model = make_model(module.eval(), torch.empty(1, *shape, device="meta"), {}, checked=False)
    run = open_session(model.SerializeToString(), threads).run
    feeds = {INPUT: np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)}
    return lambda: run(None, feeds)


ONNXRUNTIME = Runtime(("onnx", "onnxruntime"), needed, True, _open)

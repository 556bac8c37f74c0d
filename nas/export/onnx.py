"""ONNX, run by ONNX Runtime: one file with its weights, any batch, batch normalisation folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.export.format import Card, Floats, Format, Predict
from nas.export.graph import Unsupported
from nas.export.int8 import quantise, quantised
from nas.export.model import INPUT, make_model
from nas.inputs import InputError


def needed() -> Any:
    """The module onnxruntime. Raises InputError, with what to install, if it or onnx is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX needs packages that cannot be imported ({error}): pip install 'mobile-nas[onnx]'"
        ) from None
    return onnxruntime


def open_session(model: str | bytes, threads: int | None = None) -> Any:
    """An onnxruntime.InferenceSession on the CPU; `threads` None leaves their number to the runtime."""
    runtime = needed()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its own kinds have no other base
        raise Unsupported(f"ONNX Runtime cannot run it: {str(error).partition(chr(10))[0][:200]}") from None


def _write(network: nn.Module, card: Card, path: Path) -> None:
    model = make_model(network, torch.zeros(1, *card.shape), card.texts())
    path.write_bytes(model.SerializeToString())


def int8_predict(network: nn.Module, calibration: Floats) -> Predict:
    """A network in evaluation mode, on the CPU, as int8, without a file; see `nas.export.int8.quantise`."""
    model = make_model(network, torch.zeros(1, *calibration.shape[1:]), {}, checked=False)
    return _predict(quantised(model, calibration))


def _load(path: Path) -> Predict:
    return _predict(str(path))


def _predict(model: str | bytes) -> Predict:
    session = open_session(model, threads=1)

    def predict(images: Floats) -> Floats:
        found: Floats = session.run(None, {INPUT: images})[0]
        return found

    return predict


def _texts(path: Path) -> dict[str, str]:
    return dict(open_session(str(path)).get_modelmeta().custom_metadata_map)


ONNX = Format(".onnx", "onnxruntime", ("onnx", "onnxruntime"), needed, _write, _load, _texts, quantise)

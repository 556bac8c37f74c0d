"""ONNX in 8-bit whole numbers: static quantisation by ONNX Runtime's own tools, after training.

Weights are signed with a scale for each channel, activations unsigned: on a MobileNetV2 x0.5 on digits that kept 0.91
of 0.91, where one scale for all channels left 0.16, as those of a depthwise convolution differ widely (ONNX Runtime
1.31). Signed activations were as accurate and slower than float32 on x86.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nas.export.format import Floats
from nas.export.model import INPUT
from nas.export.quiet import quiet

_BATCH = 64
CALIBRATION = 512
"""Training images that say how large activations get."""


def quantise(source: Path, calibration: Floats, target: Path) -> None:
    """Writes the ONNX network in `source` as int8; `calibration` (n, channels, h, w) says how large activations get.

    Input and output stay float32, the metadata stay, with `precision` added.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=target.parent) as folder, quiet():
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(str(made))
    texts = {entry.key: entry.value for entry in onnx.load(str(source)).metadata_props}
    onnx.helper.set_model_props(model, {**texts, "precision": "int8"})
    target.write_bytes(model.SerializeToString())


def quantised(model: Any, calibration: Floats) -> bytes:
    """An onnx.ModelProto in memory as int8, see `quantise`."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model.SerializeToString())
        quantise(source, calibration, target)
        return target.read_bytes()


def _reader(images: Floats) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{INPUT: images[i : i + _BATCH]} for i in range(0, len(images), _BATCH)])

        def get_next(self) -> Any:
            return next(self.batches, None)

    return Reader()

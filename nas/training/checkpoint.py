"""Checkpoints are read with one clear line for what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.inputs import InputError, is_out_of_memory, refuse

FORMAT = 1


def read(path: Path, again: str) -> dict[str, Any]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        with file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes raise whatever the unpickler makes of them
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: is damaged or no checkpoint ({type(error).__name__}); {again}") from None
    if not isinstance(state, dict) or "format" not in state:
        raise InputError(f"{path}: is no checkpoint of a training; {again}")
    if state["format"] != FORMAT:
        raise refuse(f"{path}: format", state["format"], f"{FORMAT}; {again}")
    return state


def shapes(state: dict[str, Any]) -> dict[str, list[int] | None]:
    return {f"model.{name}": list(x.shape) if isinstance(x, Tensor) else None for name, x in state.items()}

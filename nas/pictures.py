"""Pictures of one's own as a trained network wants them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.augment import Batches, Normalisation
from nas.data.decode import Size, attempt, fitted
from nas.data.splits import Images
from nas.inputs import InputError, damaged

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preprocess:
    """A picture, a file or a PIL image, to float32 (channels, resolution, resolution), as for training.

    Upright, its centre scaled to `stored`, the size of the training images, and then to the resolution; grey or colour
    as those were; normalised. `classes` are the names of the network's outputs.
    """

    stored: Size
    resolution: int
    normalisation: Normalisation
    classes: tuple[str, ...]

    def __call__(self, picture: str | PathLike[str] | Image) -> Tensor:
        """Raises InputError for a file that cannot be read as a picture."""
        if isinstance(picture, str | PathLike):
            pixels = attempt(fspath(picture), self.stored)
            if isinstance(pixels, str):
                raise InputError(f"{fspath(picture)}: cannot be read as a picture: {pixels}")
        else:
            pixels = fitted(picture, self.stored)
        image = Images(self._coloured(pixels)[None], np.zeros(1, np.int64))
        return Batches(image, self.normalisation, self.resolution, torch.device("cpu")).plain(0, 1)[0][0]

    def _coloured(self, pixels: np.ndarray) -> np.ndarray:
        """(height, width, channels) of as many channels as the training images had."""
        from PIL import Image

        if len(self.normalisation.mean) == 1 and pixels.shape[2] == 3:
            return np.array(Image.fromarray(pixels).convert("L"))[..., None]
        return np.broadcast_to(pixels, (*self.stored, len(self.normalisation.mean)))


def preprocess(folder: Path | str) -> Preprocess:
    """What prepares pictures for the network of a retrain folder (see `load`). Raises InputError if it is none."""
    file = Path(folder, "result.json")
    if not file.is_file():
        raise InputError(f"{folder}: is no finished retraining: {file.name} is not there")
    with damaged(str(file), "retrain again"):
        result = json.loads(file.read_text(encoding="utf-8"))
        side, images = int(result["resolution"]), result["images"]
        # Earlier versions did not say how large the training images were.
        stored = int(images.get("height", side)), int(images.get("width", side))
        normalisation = Normalisation(tuple(map(float, result["mean"])), tuple(map(float, result["std"])))
        return Preprocess(stored, side, normalisation, tuple(map(str, result["classes"])))

"""What the epochs of a training are fed with: images at a resolution, as batches on the device."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import torch

from nas.augment import Augmentation, Batches, Normalisation
from nas.data.splits import Images
from nas.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Stage:
    """The epochs of a training up to `until`: what they train on, and at which resolution."""

    until: int
    images: Images
    resolution: int

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {
            "images": list(self.images.shape),
            "labels (CRC-32)": zlib.crc32(self.images.labels.tobytes()),
            "resolution": self.resolution,
        }


@dataclass(frozen=True, eq=False)
class Loaded:
    """A stage's images as batches; an epoch has `steps` of them."""

    stage: Stage
    batches: Batches
    steps: int
    held: Batches | None

    @classmethod
    def of(
        cls,
        stage: Stage,
        validation: Images | None,
        recipe: Recipe,
        normalisation: Normalisation,
        device: torch.device,
        least: int,
    ) -> Loaded:
        """A last, smaller batch counts if it has `least` images."""

        def batches(images: Images, augmentation: Augmentation | None = None, channels_last: bool = True) -> Batches:
            return Batches(images, normalisation, stage.resolution, device, augmentation, channels_last)

        count, size = len(stage.images), recipe.batch_size
        augmentation = Augmentation(recipe.crop, recipe.flip, recipe.cutout, recipe.trivial_augment)
        augmented = batches(stage.images, augmentation, recipe.channels_last)
        held = None if validation is None else batches(validation)
        return cls(stage, augmented, count // size + (count % size >= least), held)

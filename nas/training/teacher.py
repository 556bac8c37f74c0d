"""Distillation: trained networks say of each image how likely they find each class (Hinton et al. 2015)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.augment import Normalisation, resizing


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network with the same classes, and the input that it takes. `sha256` is that of its weights."""

    network: nn.Module
    normalisation: Normalisation
    resolution: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Distillation:
    """What is learnt from teachers, and how much it counts.

    The loss of a training is (1 - share) x cross-entropy with the labels + share x temperature^2 x Kullback-Leibler
    divergence from the teachers' probabilities to the network's, all of logits / temperature (Hinton et al. 2015,
    section 2). Those of several teachers are the mean of theirs (ibid., section 1), and with `average_flips` each
    teacher's are the mean of those for an image and for its mirror image.
    """

    teachers: tuple[Teacher, ...]
    share: float = 0.9
    temperature: float = 4.0
    average_flips: bool = False

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {
            "sha256": [teacher.sha256 for teacher in self.teachers],
            "share": self.share,
            "temperature": self.temperature,
            "average_flips": self.average_flips,
        }


class Lessons:
    """A distillation beside a training on `device`, whose images have `normalisation`.

    The teachers see each batch as the network does, cropped and mixed alike (Beyer et al. 2022), in their own
    normalisation and at their own resolution.
    """

    def __init__(
        self, given: Distillation, normalisation: Normalisation, device: torch.device, layout: torch.memory_format
    ) -> None:
        self.distillation = given
        self._teachers = [_Placed(teacher, normalisation, device, layout) for teacher in given.teachers]

    @torch.no_grad()
    def log_probabilities(self, x: Tensor) -> Tensor:
        """(batch, classes), of a batch (batch, channels, resolution, resolution) as the network takes it."""
        views = (x, x.flip(3)) if self.distillation.average_flips else (x,)
        each = [self._softened(teacher.logits(view)) for teacher in self._teachers for view in views]
        return torch.logsumexp(torch.stack(each), 0) - math.log(len(each))

    def loss(self, hard: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """`hard`: the loss without teachers; `taught`: their `log_probabilities`."""
        share, temperature = self.distillation.share, self.distillation.temperature
        soft = F.kl_div(self._softened(logits), taught, reduction="batchmean", log_target=True)
        return (1 - share) * hard + share * temperature**2 * soft

    def _softened(self, logits: Tensor) -> Tensor:
        return F.log_softmax(logits.float() / self.distillation.temperature, 1)


class _Placed:
    """A teacher on `device`."""

    def __init__(
        self, teacher: Teacher, normalisation: Normalisation, device: torch.device, layout: torch.memory_format
    ) -> None:
        self._resolution = teacher.resolution
        self._network = teacher.network.eval().requires_grad_(False).to(device).to(memory_format=layout)
        (mean, std), (its_mean, its_std) = (
            (torch.tensor(x.mean, dtype=torch.float64), torch.tensor(x.std, dtype=torch.float64))
            for x in (normalisation, teacher.normalisation)
        )
        self._scale, self._shift = (
            x.float().view(-1, 1, 1).to(device) for x in (std / its_std, (mean - its_mean) / its_std)
        )

    def logits(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # images as exact as the network's
            x = torch.addcmul(self._shift, x, self._scale)
            if (side := x.shape[-1]) != self._resolution:
                matrix = _resizing(side, self._resolution, x.device)
                x = matrix @ x @ matrix.T
        logits: Tensor = self._network(x)
        return logits


@cache
def _resizing(side: int, new: int, device: torch.device) -> Tensor:
    return resizing(side, new).to(device)

"""Distillation: a trained network says of each image how likely it finds each class (Hinton et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.augment import Normalisation, resizing


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network with the same classes, the input that it takes, and how much it counts.

    The loss of a training is (1 - share) x cross-entropy with the labels + share x temperature^2 x Kullback-Leibler
    divergence from the teacher's probabilities to the network's, both of logits / temperature (Hinton et al. 2015,
    section 2). `sha256` is that of its weights.
    """

    network: nn.Module
    normalisation: Normalisation
    resolution: int
    sha256: str
    share: float = 0.9
    temperature: float = 4.0

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {"sha256": self.sha256, "share": self.share, "temperature": self.temperature}


class Lessons:
    """A teacher beside a training on `device`, whose images have `normalisation`.

    It sees each batch as the network does, cropped and mixed alike (Beyer et al. 2022), in its own normalisation and
    at its own resolution.
    """

    def __init__(
        self, teacher: Teacher, normalisation: Normalisation, device: torch.device, layout: torch.memory_format
    ) -> None:
        self._teacher = teacher
        self._network = teacher.network.eval().requires_grad_(False).to(device).to(memory_format=layout)
        (mean, std), (its_mean, its_std) = (
            (torch.tensor(x.mean, dtype=torch.float64), torch.tensor(x.std, dtype=torch.float64))
            for x in (normalisation, teacher.normalisation)
        )
        self._scale, self._shift = (
            x.float().view(-1, 1, 1).to(device) for x in (std / its_std, (mean - its_mean) / its_std)
        )

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Of a batch (batch, channels, resolution, resolution) as the network takes it."""
        with torch.autocast(x.device.type, enabled=False):  # images as exact as the network's
            x = torch.addcmul(self._shift, x, self._scale)
            if (side := x.shape[-1]) != self._teacher.resolution:
                matrix = _resizing(side, self._teacher.resolution, x.device)
                x = matrix @ x @ matrix.T
        logits: Tensor = self._network(x)
        return logits

    def loss(self, hard: Tensor, logits: Tensor, its: Tensor) -> Tensor:
        """`hard`: the loss without a teacher; `its`: the teacher's logits."""
        share, temperature = self._teacher.share, self._teacher.temperature
        mine, its = (F.log_softmax(x.float() / temperature, 1) for x in (logits, its))
        soft = F.kl_div(mine, its, reduction="batchmean", log_target=True)
        return (1 - share) * hard + share * temperature**2 * soft


@cache
def _resizing(side: int, new: int, device: torch.device) -> Tensor:
    return resizing(side, new).to(device)

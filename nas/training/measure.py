"""Accuracy and loss of a network on images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nas.augment import Batches, Normalisation
from nas.data.splits import Images


def evaluate(
    network: nn.Module,
    images: Images,
    *,
    normalisation: Normalisation,
    resolution: int,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    average_flips: bool = False,
) -> tuple[float, float]:
    """(accuracy as a fraction, mean cross-entropy) of `network`, which moves to `device`, in float32 and eval mode.

    With `average_flips` that of its mean logits over an image and its mirror image.

    Every module gets its training flag back. `batch_size` is by default 125 on the CPU, where larger ones cost page
    faults (1.5 instead of 0.9 ms an image of 32 x 32 at 500), and 500 elsewhere.
    Raises InputError if there are no images.
    """
    device = torch.device(device)
    batches = Batches(images, normalisation, resolution, device)
    return measure(network.to(device), batches, device, batch_size, average_flips)


def measure(
    network: nn.Module, batches: Batches, device: torch.device, size: int | None = None, average_flips: bool = False
) -> tuple[float, float]:
    size = size or (125 if device.type == "cpu" else 500)
    flags = [(module, module.training) for module in network.modules()]
    loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    network.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(batches), size):
                x, y = batches.plain(start, start + size)
                logits = network(x).float()
                if average_flips:
                    logits = (logits + network(x.flip(3)).float()) / 2
                loss += F.cross_entropy(logits, y, reduction="sum")
                correct += (logits.argmax(1) == y).sum()
    finally:
        for module, flag in flags:
            module.training = flag
    return correct.item() / len(batches), loss.item() / len(batches)

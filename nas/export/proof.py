"""A file counts once the runtime has read it and said what PyTorch says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nas.export.format import Card, Floats, Format, Predict
from nas.files import write_whole
from nas.inputs import InputError

TOLERANCE = 1e-4
"""Of the largest logit: float32 sums in another order differ by some 1e-6."""
_BATCH = 64


@dataclass(frozen=True)
class Proof:
    """How far a file's logits are from PyTorch's on `images`: `difference` and `relative` to the largest logit."""

    images: int
    equal: int
    difference: float
    relative: float


def write_proven(form: Format, network: nn.Module, card: Card, images: Floats, path: Path) -> Proof:
    """Writes the network, reads the file back and compares it with PyTorch on `images` (n, channels, h, w).

    The file is at `path` only if all predictions are equal and no logit differs by more than TOLERANCE of the largest;
    otherwise InputError. One batch is larger than the next, so the batch is proven to be free.
    """
    form.check()
    expected = logits(network, images)
    proof: list[Proof] = []

    def write(temporary: Path) -> None:
        form.write(network, card, temporary)
        proof.append(compare(expected, run(form.load(temporary), images)))
        if proof[0].equal < len(images) or not proof[0].relative <= TOLERANCE:
            raise InputError(
                f"{path}: is not written: {form.runtime} and PyTorch disagree: {proof[0].equal} of {len(images)} "
                f"predictions are equal, logits differ by {proof[0].relative:.2g} of the largest"
            )
        if not card.texts().items() <= (texts := form.texts(temporary)).items():
            raise InputError(f"{path}: is not written: what it says of the network came back as {texts}")

    write_whole(path, write)
    return proof[0]


def compare(expected: Floats, found: Floats) -> Proof:
    """Of (n, classes) logits; NaN is a difference."""
    difference = float(np.abs(expected - found).max())
    equal = int((expected.argmax(1) == found.argmax(1)).sum())
    return Proof(len(expected), equal, difference, difference / max(float(np.abs(expected).max()), 1e-12))


def accuracy(predict: Predict, batches: Iterable[tuple[Floats, NDArray[np.int64]]]) -> float:
    """Share of images whose largest logit is their label's, of batches (n, channels, h, w) with their labels (n,)."""
    right = np.concatenate([predict(images).argmax(1) == labels for images, labels in batches])
    return float(right.mean())


def run(predict: Predict, images: Floats) -> Floats:
    """Logits of all images: batches of _BATCH, what is left over, and the last image alone."""
    cuts = [*range(0, len(images) - 1, _BATCH), len(images) - 1, len(images)]
    parts = [predict(np.ascontiguousarray(images[a:b])) for a, b in pairwise(cuts) if b > a]
    return np.concatenate(parts)


def logits(network: nn.Module, images: Floats) -> Floats:
    """PyTorch's, on the CPU in evaluation mode."""
    with torch.no_grad():
        parts = [network(x) for x in torch.split(torch.from_numpy(images), _BATCH)]
    found: Floats = torch.cat(parts).numpy()
    return found

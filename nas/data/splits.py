"""Images in memory or memory-mapped, and how the training set is cut: stratified, seeded, with exact sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.inputs import InputError, refuse

CHUNK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels`: uint8 (any, height, width, channels), possibly memory-mapped; `labels`: int64 (n,); `rows`: int64 (n,),
    which of the pixels these images are, in this order, or None: all. Parts of a set share its pixels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, channels)."""
        height, width, channels = self.pixels.shape[1:]
        return len(self), height, width, channels

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """`rows`, also where they are all."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def gather(self, positions: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.uint8]:
        """The pixels of the images at these positions, by default of all, copied into memory."""
        return np.take(np.asarray(self.pixels), self.index[positions], axis=0)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """The images at these positions; their pixels are not copied."""
        index = np.asarray(indices, dtype=None if len(indices) else np.int64)
        return Images(self.pixels, self.labels[index], self.index[index])

    def some(self, count: int) -> Images:
        """At most `count` of them, every class in proportion, the same ones each time."""
        return self.take(stratified(self.labels, count, seed=0)) if count < len(self) else self

    def share(self, share: float, seed: int) -> Images:
        """`share` of the images, rounded, every class in proportion; share 1.0 is all of them, as they are.

        With one seed a class' smaller share is part of its larger share. Raises InputError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise refuse("share", share, "more than 0 and at most 1")
        if share == 1:
            return self
        count = max(1, round(share * len(self)))
        return self.take(stratified(self.labels, count, seed))


@dataclass(frozen=True, eq=False)
class Source:
    """What one file of the family returns. `labels` are positions in `classes`."""

    train: Images
    test: Images
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Splits:
    """What a study trains, validates and, once, tests on.

    `mean` and `std` are per channel, of the pixels of `train` / 255: population std, at least 1e-3.
    """

    train: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, height, width, channels = self.train.shape
        return channels, height, width

    @property
    def train_and_validation(self) -> Images:
        """All training images, for a retrain."""
        parts = (self.train, self.validation)
        assert self.train.pixels is self.validation.pixels
        labels, rows = np.concatenate([x.labels for x in parts]), np.concatenate([x.index for x in parts])
        return Images(self.train.pixels, labels, rows)


def split(source: Source, validation: int | float, seed: int) -> Splits:
    """Cuts `validation` (a count, or a share) off the training set, every class in proportion and on either side.

    Raises InputError if either side would lack a class, or if a set is empty or of another shape.
    """
    _check(source)
    train, validated = held_out(source.train, validation, seed, "data.validation", "training images")
    return Splits(train, validated, source.test, source.classes, *moments(train))


def held_out(images: Images, part: int | float, seed: int, where: str, what: str) -> tuple[Images, Images]:
    """The rest, and `part` of the images (a count, or a share), every class in proportion and on either side.

    Raises InputError, which names the part as `where` and the images as `what`, if either side would lack a class.
    """
    total, classes = len(images), len(np.unique(images.labels))
    count = part if isinstance(part, int) else round(part * total)
    if count >= total:
        raise refuse(where, part, f"less than the {total} {what}, or a share of them such as 0.2")
    if not classes <= count <= total - classes:
        rule = f"from {classes} to {total - classes} of the {total} {what}: one of each class on either side"
        raise refuse(where, part, rule)
    held = stratified(images.labels, count, seed)
    rest = np.setdiff1d(np.arange(total), held, assume_unique=True)
    return images.take(rest), images.take(held)


def _check(source: Source) -> None:
    if not len(source.test):
        raise InputError("data: there are no test images")
    if source.train.shape[1:] != source.test.shape[1:]:
        shapes = f"{source.train.shape[1:]} and {source.test.shape[1:]}"
        raise InputError(f"data: training and test images are {shapes} (height, width, channels), but must be alike")
    sizes = np.bincount(source.train.labels, minlength=len(source.classes))
    for name, size in zip(source.classes, sizes.tolist(), strict=True):
        if size < 2:
            rule = "must have at least 2: one to train on, one to validate on"
            raise InputError(f"data: class {name!r} has {size} training images, but {rule}")


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """`count` positions in `labels`, ascending, every class in proportion, chosen by `seed`.

    For 0 < count <= n. If count and n - count are at least the number of classes, every class of two or more has at
    least one position chosen and one not chosen.
    """
    rng = np.random.default_rng(seed)
    present, sizes = np.unique(labels, return_counts=True)
    least = 1 if count >= len(present) else 0
    spare = 1 if len(labels) - count >= len(present) else 0
    takes = _apportion(sizes, count, np.full_like(sizes, least), np.maximum(sizes - spare, least))
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(present, takes, strict=True)]
    return np.sort(np.concatenate(chosen))


def _apportion(
    sizes: NDArray[np.int64], count: int, least: NDArray[np.int64], most: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Largest remainder: shares of `count` in proportion to `sizes`, within `least` and `most`, that sum to `count`."""
    exact = sizes * count / sizes.sum()
    seats: NDArray[np.int64] = np.clip(np.floor(exact).astype(np.int64), least, most)
    while missing := count - int(seats.sum()):
        owed = exact - seats
        if missing > 0:
            seats[np.argmax(np.where(seats < most, owed, -np.inf))] += 1
        else:
            seats[np.argmin(np.where(seats > least, owed, np.inf))] -= 1
    return seats


def moments(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population std (at least 1e-3) per channel of pixels / 255, from exact counts of the 256 values."""
    counts = np.zeros((images.shape[3], 256), np.int64)
    step = max(1, CHUNK_VALUES // images.pixels[0].size)
    for start in range(0, len(images), step):
        pixels = images.gather(slice(start, start + step))
        for channel, row in enumerate(counts):
            row += np.bincount(pixels[..., channel].ravel(), minlength=256)
    values, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())

"""Images to batches of network input: crop, flip, cutout and resizing of a whole batch at once, on its device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.data.splits import Images
from nas.inputs import InputError
from nas.trivial import trivial_augment

_RESIDENT_SHARE = 0.25


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel of pixels / 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Augmentation:
    """Sizes in pixels of the images as they are stored, so that they mean the same at every resolution.

    `crop`: zero padding on each side of a random crop back to the image's size (He et al. 2015, section 4.2).
    `flip`: half of the images are mirrored, by chance. `cutout`: side of a square set to the mean, its centre anywhere
    in the image, so that a part may lie outside (DeVries and Taylor 2017, section 3.2). `trivial_augment`: each image
    gets one of torchvision's operations at any strength (Mueller and Hutter 2021, "wide"), drawn from torch's global
    generator; for 1 or 3 channels. 0 and False are off.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    trivial_augment: bool = False


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch. Row i is that of the i-th image in the epoch, which is image `order[i]`.

    `offsets` (n, 2): first row and column of the crop in the padded image, 0 to 2 * crop; 0 without crop.
    `flips` (n,): whether the crop is mirrored. `centres` (n, 2): row and column of the cutout's centre in the crop.
    """

    order: Tensor
    offsets: Tensor
    flips: Tensor
    centres: Tensor


class Batches:
    """Images (n, h, w, channels) as float32 input (batch, channels, resolution, resolution), channels last in memory.

    On the CPU their pixels are read where they are: they may be memory-mapped and read-only. On other devices they are
    copied there if they fill at most a quarter of the memory that is free, else each batch is.
    Raises InputError if there are no images or the augmentation or `normalisation` has another number of channels.
    """

    def __init__(
        self,
        images: Images,
        normalisation: Normalisation,
        resolution: int,
        device: torch.device,
        augmentation: Augmentation | None = None,
        channels_last: bool = True,
    ) -> None:
        self._augmentation = augmentation or Augmentation()
        self._resolution, self._device, self._channels_last = resolution, device, channels_last
        self._count, self._height, self._width, self._channels = images.shape
        if not self._count:
            raise InputError("images: there are none")
        if not len(normalisation.mean) == len(normalisation.std) == self._channels:
            counts = f"{len(normalisation.mean)} means and {len(normalisation.std)} stds"
            raise InputError(f"normalisation has {counts}, but must have one for each of {self._channels} channels")
        if self._augmentation.trivial_augment and self._channels not in {1, 3}:
            raise InputError(f"trivial_augment is for images of 1 or 3 channels, not {self._channels}")
        self._images: Images | Tensor = images
        if math.prod(images.shape) <= _RESIDENT_SHARE * _free_bytes(device):
            self._images = torch.from_numpy(images.gather()).to(device)
        self._labels = torch.from_numpy(np.array(images.labels, np.int64)).to(device)
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (normalisation.mean, normalisation.std))
        self._scale = (1 / (255 * std)).float().repeat(self._width).to(device)
        self._shift = (-mean / std).float().repeat(self._width).to(device)
        self._taller, wider = (resizing(size, resolution) for size in self._size)
        self._taller = self._taller.to(device)
        self._wider = torch.kron(wider.T.contiguous(), torch.eye(self._channels)).to(device)
        self._rows, self._columns = (torch.arange(x, device=device) for x in (self._height, self._width))

    def __len__(self) -> int:
        return len(self._labels)

    def draw(self, generator: torch.Generator) -> Draws:
        """One epoch's random numbers from a CPU generator: in a new order, all images once."""
        crop, flip, cutout = self._augmentation.crop, self._augmentation.flip, self._augmentation.cutout
        nothing = torch.zeros(self._count, 2, dtype=torch.int64)
        order = torch.randperm(self._count, generator=generator)
        offsets = torch.randint(2 * crop + 1, (self._count, 2), generator=generator) if crop else nothing
        flips = torch.rand(self._count, generator=generator) < 0.5 if flip else nothing[:, 0].bool()
        places = [torch.randint(x, (self._count,), generator=generator) for x in self._size] if cutout else [*nothing.T]
        drawn = (offsets, flips, torch.stack(places, 1))
        return Draws(order, *(x.to(self._device) for x in drawn))

    def plain(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Input and labels (batch,) int64 of images `start` to `stop` - 1 as they are."""
        where = torch.arange(start, min(stop, self._count))
        return self._input(self._normalised(self._fetch(where))), self._labels[start:stop]

    def arrays(self, size: int = 64) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Input and labels of all images as they are, in order, for runtimes other than torch."""
        for start in range(0, self._count, size):
            x, y = self.plain(start, start + size)
            yield np.ascontiguousarray(x.cpu().numpy()), y.cpu().numpy()

    def augmented(self, draws: Draws, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Input and labels (batch,) int64 of the epoch's images `start` to `stop` - 1.

        Steps: zero padding, crop, mirror, trivial augment, normalisation, cutout, resizing.
        """
        where, part = draws.order[start:stop], slice(start, stop)
        pixels = self._fetch(where)
        if self._augmentation.crop or self._augmentation.flip:
            pixels = self._crop(pixels, draws.offsets[part], draws.flips[part])
        if self._augmentation.trivial_augment:
            pixels = trivial_augment(pixels)
        rows = self._normalised(pixels)
        if self._augmentation.cutout:
            rows.masked_fill_(self._cutout(draws.centres[part]), 0.0)
        return self._input(rows), self._labels[where.to(self._device)]

    @property
    def _size(self) -> tuple[int, int]:
        return self._height, self._width

    def _fetch(self, where: Tensor) -> Tensor:
        """uint8 (batch, h, w, channels) on the device; a copy."""
        if isinstance(self._images, Tensor):
            return self._images.index_select(0, where.to(self._device))
        batch, cuda = torch.from_numpy(self._images.gather(where.numpy())), self._device.type == "cuda"
        return (batch.pin_memory() if cuda else batch).to(self._device, non_blocking=cuda)

    def _crop(self, pixels: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Crop and mirror as one gather of pixels: (batch, h, w, channels) -> the same."""
        crop, batch = self._augmentation.crop, len(pixels)
        padded = F.pad(pixels, (0, 0, crop, crop, crop, crop)) if crop else pixels
        first = torch.arange(batch, device=self._device)[:, None] * padded.shape[1]
        rows = (first + offsets[:, :1] + self._rows) * padded.shape[2]
        columns = torch.where(flips[:, None], self._columns.flip(0), self._columns) + offsets[:, 1:]
        index = rows[:, :, None] + columns[:, None, :]
        return padded.view(-1, self._channels).index_select(0, index.view(-1)).view(pixels.shape)

    def _cutout(self, centres: Tensor) -> Tensor:
        """Where the squares are: bool (batch, h, w * channels)."""
        side = self._augmentation.cutout
        first = centres - side // 2
        rows, columns = (x - first[:, i : i + 1] for i, x in enumerate((self._rows, self._columns)))
        inside = ((columns >= 0) & (columns < side)).repeat_interleave(self._channels, 1)
        return ((rows >= 0) & (rows < side))[:, :, None] & inside[:, None, :]

    def _normalised(self, pixels: Tensor) -> Tensor:
        """float32 (batch, h, w * channels): whole rows, because an inner loop over 3 channels is 10 times as slow."""
        return torch.addcmul(self._shift, pixels.view(len(pixels), self._height, -1).float(), self._scale)

    def _input(self, rows: Tensor) -> Tensor:
        """Resized (bilinear, antialiased) to the resolution and seen as (batch, channels, height, width).

        Two products of matrices: on the CPU faster than F.interpolate, on CUDA deterministic, on MPS there.
        """
        if self._size != (self._resolution, self._resolution):
            rows = torch.matmul(torch.matmul(self._taller, rows), self._wider)
        shape = (len(rows), self._resolution, self._resolution, self._channels)
        images = rows.view(shape).permute(0, 3, 1, 2)
        return images if self._channels_last else images.contiguous()


def resizing(size: int, new: int) -> Tensor:
    """float32 (new, size): the weights of bilinear, antialiased resizing along one side."""
    return F.interpolate(torch.eye(size)[None, None], size=(new, size), mode="bilinear", antialias=True)[0, 0]


def _free_bytes(device: torch.device) -> int:
    """Memory for images that can stay on the device; 0 on the CPU, where they are already."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) if device.type == "mps" else 0

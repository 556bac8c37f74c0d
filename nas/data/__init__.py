"""Images by name: one source per file, one line in DATASETS."""

from __future__ import annotations

from collections.abc import Callable

from nas.data.cifar import cifar10, cifar100
from nas.data.config import DataConfig
from nas.data.digits import digits
from nas.data.fashion_mnist import fashion_mnist
from nas.data.imagefolder import imagefolder
from nas.data.splits import Images, Source, Splits, split
from nas.inputs import choices, refuse

__all__ = ["DATASETS", "DataConfig", "Images", "Source", "Splits", "load"]

DATASETS: dict[str, Callable[[DataConfig], Source]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "fashion_mnist": fashion_mnist,
    "imagefolder": imagefolder,
}


def load(config: DataConfig) -> Splits:
    """The images of a study; equal configs give equal splits. Raises InputError for all that a user can get wrong."""
    if config.source not in DATASETS:
        raise refuse("data.source", config.source, choices(DATASETS))
    if config.source != "imagefolder":
        for key, fact in (("size", "the images of {} have one size"), ("test", "{} has test images of its own")):
            if (value := getattr(config, key)) is not None:
                raise refuse(f"data.{key}", value, f"left out: {fact.format(config.source)}")
    return split(DATASETS[config.source](config), config.validation, config.seed)

"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32 x 32, through torchvision."""

from __future__ import annotations

import os
import warnings
from http.client import HTTPException
from tarfile import TarError
from typing import Any

import numpy as np

from nas.data.config import DataConfig, first_line, needed
from nas.data.splits import Images, Source
from nas.inputs import InputError, refuse


def cifar10(config: DataConfig) -> Source:
    return _cifar(config, "CIFAR10")


def cifar100(config: DataConfig) -> Source:
    return _cifar(config, "CIFAR100")


def _cifar(config: DataConfig, name: str) -> Source:
    """Raises InputError if files are missing or damaged (torchvision checks their MD5), or the download fails."""
    base = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}[name]
    root = config.folder(base)
    dataset = getattr(needed("torchvision.datasets", config.source, "torchvision"), name)
    files = [file for file, _ in (*dataset.train_list, *dataset.test_list)] + [dataset.meta["filename"]]
    missing = [file for file in files if not os.path.isfile(root / base / file)]
    if missing and not config.download:
        rule = f"a folder that holds {base}/{missing[0]}, which is not there; download: true fetches it"
        raise refuse("data.root", str(root), rule)
    try:
        with warnings.catch_warnings():
            # NumPy 2.4.0 to 2.4.4 warn about how the published pickles spell a dtype (numpy/numpy#31177).
            warnings.filterwarnings("ignore", r"dtype\(\): align", np.exceptions.VisibleDeprecationWarning)
            train, test = (dataset(str(root), train=part, download=config.download) for part in (True, False))
    except (OSError, RuntimeError, HTTPException, TarError, EOFError) as error:
        raise InputError(f"data.root: {root / base} cannot be used: {first_line(error)}") from None
    return Source(_images(train), _images(test), tuple(train.classes))


def _images(dataset: Any) -> Images:
    return Images(np.ascontiguousarray(dataset.data), np.asarray(dataset.targets, np.int64))

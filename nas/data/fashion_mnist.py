"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey images of 28 x 28, from torchvision or Debian's package."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from nas.data.config import DataConfig, first_line, needed
from nas.data.splits import Images, Source
from nas.files import cache_folder, write_whole
from nas.inputs import InputError, refuse

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RAW = Path("FashionMNIST", "raw")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_DAMAGE = (AssertionError, EOFError, HTTPException, LookupError, OSError, RuntimeError, TypeError, ValueError)


def fashion_mnist(config: DataConfig) -> Source:
    """From root/FashionMNIST/raw, or from the four .gz files of Debian's `dataset-fashion-mnist` in root, its default.

    Raises InputError if files are missing or damaged, or the download fails.
    """
    default = config.root is None and os.path.isdir(DEBIAN)
    root = DEBIAN if default else config.folder(f"{RAW}, or Debian's package dataset-fashion-mnist")
    found = _unpacked(root)
    if found is None and not config.download:
        rule = f"a folder that holds {RAW / FILES[0]} or {FILES[0]}.gz and their like; download: true fetches them"
        raise refuse("data.root", str(root), rule)
    dataset = needed("torchvision.datasets", config.source, "torchvision").FashionMNIST
    try:
        parts = [dataset(str(found or root), train=part, download=found is None) for part in (True, False)]
        train, test = (_images(part) for part in parts)
    except (*_DAMAGE, UnpicklingError) as error:
        raise InputError(f"data.root: {(found or root) / RAW} cannot be used: {first_line(error)}") from None
    return Source(train, test, tuple(dataset.classes))


def _unpacked(root: Path) -> Path | None:
    """The folder that torchvision can read: `root`, or one in the cache with the .gz files of `root` unpacked."""
    if all(os.path.isfile(root / RAW / name) for name in FILES):
        return root
    for folder in (root, root / RAW):
        packed = [folder / f"{name}.gz" for name in FILES]
        if all(os.path.isfile(path) for path in packed):
            stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in packed]
            key = hashlib.sha256(repr(stats).encode()).hexdigest()[:20]
            target = cache_folder() / "fashion_mnist" / key
            for path in packed:
                _unpack(path, target / RAW / path.stem)
            return target
    return None


def _unpack(packed: Path, target: Path) -> None:
    try:
        data = packed.read_bytes()
        # A gzip file ends with its unpacked size in four bytes (RFC 1952, section 2.3.1).
        if target.is_file() and target.stat().st_size == int.from_bytes(data[-4:], "little"):
            return
        content = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"data.root: {packed} cannot be unpacked: {first_line(error)}") from None
    try:
        write_whole(target, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise InputError(f"NAS_CACHE: {target.parent} cannot be written: {first_line(error)}") from None


def _images(dataset: Any) -> Images:
    pixels, labels = dataset.data.numpy()[..., None], dataset.targets.numpy().astype(np.int64)
    if pixels.ndim != 4 or len(pixels) != len(labels) or not len(labels):
        raise ValueError(f"it has {len(pixels)} images and {len(labels)} labels")
    if not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        raise ValueError(f"a label is {labels.max()}, but the classes end at {len(dataset.classes) - 1}")
    return Images(pixels, labels)

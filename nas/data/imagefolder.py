"""A folder of images, one subfolder a class: root/train/<class>/* and root/test/<class>/* (or val in place of test), or
root/<class>/* alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.data.config import DataConfig, first_line
from nas.data.decode import Decoded, attempt, decode, open_decoded
from nas.data.splits import Images, Source, held_out
from nas.files import cache_folder, sweep, write_whole
from nas.inputs import InputError, refuse

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_KINDS = " ".join(extension[1:] for extension in EXTENSIONS)
FORMAT_VERSION = 1
LAYOUT = "train/<class>/ and test/<class>/ (or val/<class>/), or <class>/ alone"
PARTS = ("train", "test", "val")
TEST_SHARE, TEST_SEED = 0.2, 0

logger = logging.getLogger("nas")


class File(NamedTuple):
    """One image; `bytes` and `mtime_ns` are -1 if it is a link to nowhere."""

    path: str
    bytes: int
    mtime_ns: int


Folder = dict[str, list[File]]


def imagefolder(config: DataConfig) -> Source:
    """Images are decoded once and then memory-mapped from the cache, until a file, a name or `size` changes.

    Where there are no test images, `test` of all are held out, the same ones whatever the seed of the study.
    Raises InputError if folders, classes or images are missing, images differ in size and `size` is None, or images
    are damaged and `corrupt` is `refuse`.
    """
    root = config.folder(LAYOUT)
    others: list[str] = []
    train_folder, test_folder = _folders(root)
    if test_folder and config.test is not None:
        raise refuse("data.test", config.test, f"left out: {test_folder} holds the test images")
    train = _folder(train_folder, others)
    test = _folder(test_folder, others) if test_folder else {}
    if others:
        what = f"{len(others)} files or folders in those of the classes are no images ({_KINDS}) and are left out"
        logger.warning("data: %s, the first is %s", what, others[0])
    for name in sorted(train.keys() ^ test.keys()) if test_folder else ():
        only, lacks = ("training", "test") if name in train else ("test", "training")
        raise InputError(f"data.root: class {name!r} of {root} has {only} images, but no {lacks} images")
    files = [file for part in (train, test) for images in part.values() for file in images]
    decoded = _decoded(root, files, config.size)
    _report(decoded, files, config.corrupt)
    count = sum(len(images) for images in train.values())
    images = _images(decoded, train, 0)
    if test_folder:
        source = Source(images, _images(decoded, test, count), tuple(train))
        _check_classes(root, source.train, source.classes, "training", 1)
        _check_classes(root, source.test, source.classes, "test", 1)
        return source
    _check_classes(root, images, tuple(train), "training, validation or test", 3)
    images, tested = held_out(images, config.test or TEST_SHARE, TEST_SEED, "data.test", "images")
    logger.info("data: %s has no test images: %d of all %d are held out", root, len(tested), count)
    return Source(images, tested, tuple(train))


def _check_classes(root: Path, images: Images, classes: Sequence[str], part: str, least: int) -> None:
    for name, left in zip(classes, np.bincount(images.labels, minlength=len(classes)), strict=True):
        if left < least:
            has = "no" if left == 0 else f"{left} of at least {least}"
            raise InputError(f"data.root: class {name!r} of {root} has {has} {part} images that can be read")


def _folders(root: Path) -> tuple[Path, Path | None]:
    """Those that hold the classes of the training images, and of the test images if they have one."""
    test = next((root / name for name in ("test", "val") if os.path.isdir(root / name)), None)
    if os.path.isdir(root / "train"):
        return root / "train", test
    if test or not os.path.isdir(root):
        missing = root / "train" if test else root
        raise refuse("data.root", str(root), f"a folder that holds {LAYOUT}; {missing} is not there")
    return root, None


def _folder(root: Path, others: list[str]) -> Folder:
    """class -> its images, both in the order of their names; what is no image goes to `others`, unless it is hidden."""
    try:
        with os.scandir(root) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        folder = {name: _files(root / name, others) for name in classes}
    except OSError as error:
        raise InputError(f"data.root: {error.filename} cannot be read: {first_line(error)}") from None
    if not folder:
        raise InputError(f"data.root: {root} has no folders, but must have one for each class")
    for name, files in folder.items():
        if not files:
            hint = "" if root.name in PARTS else f" ({root} has no train/, so its folders are the classes)"
            raise InputError(f"data.root: {root / name} has no images ({_KINDS}); remove it or fill it{hint}")
    return folder


def _files(folder: Path, others: list[str]) -> list[File]:
    files: list[File] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if not entry.name.lower().endswith(EXTENSIONS):
                others.append(entry.path)
                continue
            try:
                status = entry.stat()
            except OSError:
                files.append(File(entry.path, -1, -1))
                continue
            if not stat.S_ISREG(status.st_mode):
                others.append(entry.path)
            else:
                files.append(File(entry.path, status.st_size, status.st_mtime_ns))
    return files


def _decoded(root: Path, files: list[File], side: int | None) -> Decoded:
    size = None if side is None else (side, side)
    listing = "\n".join(f"{file.path[len(str(root)) :]}\0{file.bytes}\0{file.mtime_ns}" for file in files)
    text = f"{FORMAT_VERSION}\0{root}\0{side}\0{listing}"
    key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    cache = cache_folder() / "imagefolder" / f"{key}.npy"
    decoded = open_decoded(cache, len(files))
    # A file that reads now was not damaged, but out of reach.
    if decoded and all(isinstance(attempt(files[position].path, size), str) for position in decoded.damaged):
        return decoded
    sweep(cache.parent)
    paths, file_bytes = [file.path for file in files], sum(file.bytes for file in files)
    try:
        write_whole(cache, lambda temporary: decode(paths, file_bytes, size, temporary))
    except OSError as error:
        hint = "; NAS_CACHE names another folder, data.size makes images smaller"
        raise InputError(f"NAS_CACHE: {cache.parent} cannot be written: {first_line(error)}{hint}") from None
    decoded = open_decoded(cache, len(files))
    if decoded is None:
        raise InputError(f"NAS_CACHE: {cache} was written but cannot be read back")
    return decoded


def _report(decoded: Decoded, files: list[File], corrupt: str) -> None:
    """Refuses damaged images, or names them in one line of the log."""
    if not decoded.damaged:
        return
    paths = [f"{files[position].path} ({reason})" for position, reason in sorted(decoded.damaged.items())]
    count = f"{len(paths)} of the {len(files)} images cannot be read"
    if corrupt == "refuse":
        raise InputError(f"data.root: {count}, the first is {paths[0]}; data.corrupt: skip leaves them out")
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    logger.warning("data: %s and are left out: %s%s", count, ", ".join(paths[:10]), more)


def _images(decoded: Decoded, folder: Folder, start: int) -> Images:
    """The rows of `folder`, which begin at `start`, without those that are damaged: a view of the cache."""
    labels = np.repeat(np.arange(len(folder)), [len(files) for files in folder.values()])
    # No np.memmap, which would be pickled with all its bytes: Ray's tasks share the memory of plain arrays alone.
    images = Images(np.asarray(decoded.pixels[start : start + len(labels)]), labels)
    whole = [i for i in range(len(labels)) if i + start not in decoded.damaged]
    return images if len(whole) == len(labels) else images.take(whole)

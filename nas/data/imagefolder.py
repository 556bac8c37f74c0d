"""A folder of images, one subfolder a class: root/train/<class>/* and root/test/<class>/* (or val in place of test)."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.data.config import DataConfig, first_line
from nas.data.decode import Decoded, attempt, decode, open_decoded
from nas.data.splits import Images, Source
from nas.files import cache_folder, sweep, write_whole
from nas.inputs import InputError, refuse

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_KINDS = " ".join(extension[1:] for extension in EXTENSIONS)
FORMAT_VERSION = 1

logger = logging.getLogger("nas")


class File(NamedTuple):
    """One image; `bytes` and `mtime_ns` are -1 if it is a link to nowhere."""

    path: str
    bytes: int
    mtime_ns: int


Folder = dict[str, list[File]]


def imagefolder(config: DataConfig) -> Source:
    """Images are decoded once and then memory-mapped from the cache, until a file, a name or `size` changes.

    Raises InputError if folders, classes or images are missing, images differ in size and `size` is None, or images
    are damaged and `corrupt` is `refuse`.
    """
    root = config.folder("train/<class>/ and test/<class>/")
    others: list[str] = []
    train = _folder(root, "train", others)
    test = _folder(root, "val" if os.path.isdir(root / "val") and not os.path.exists(root / "test") else "test", others)
    if others:
        what = f"{len(others)} files or folders in those of the classes are no images ({_KINDS}) and are left out"
        logger.warning("data: %s, the first is %s", what, others[0])
    for name in sorted(train.keys() ^ test.keys()):
        only, lacks = ("training", "test") if name in train else ("test", "training")
        raise InputError(f"data.root: class {name!r} of {root} has {only} images, but no {lacks} images")
    files = [file for part in (train, test) for images in part.values() for file in images]
    decoded = _decoded(root, files, config.size)
    _report(decoded, files, config.corrupt)
    count = sum(len(images) for images in train.values())
    source = Source(_images(decoded, train, 0), _images(decoded, test, count), tuple(train))
    for part, images in (("training", source.train), ("test", source.test)):
        for name, left in zip(train, np.bincount(images.labels, minlength=len(train)), strict=True):
            if not left:
                raise InputError(f"data.root: class {name!r} of {root} has no {part} image that can be read")
    return source


def _folder(root: Path, part: str, others: list[str]) -> Folder:
    """class -> its images, both in the order of their names; what is no image goes to `others`, unless it is hidden."""
    if not os.path.isdir(root / part):
        layout = "train/<class>/ and test/<class>/ (or val/<class>/)"
        raise refuse("data.root", str(root), f"a folder that holds {layout}; {part} is not there")
    try:
        with os.scandir(root / part) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        folder = {name: _files(root / part / name, others) for name in classes}
    except OSError as error:
        raise InputError(f"data.root: {error.filename} cannot be read: {first_line(error)}") from None
    if not folder:
        raise InputError(f"data.root: {root / part} has no folders, but must have one for each class")
    for name, files in folder.items():
        if not files:
            raise InputError(f"data.root: {root / part / name} has no images ({_KINDS}); remove it or fill it")
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


def _decoded(root: Path, files: list[File], size: int | None) -> Decoded:
    listing = "\n".join(f"{file.path[len(str(root)) :]}\0{file.bytes}\0{file.mtime_ns}" for file in files)
    text = f"{FORMAT_VERSION}\0{root}\0{size}\0{listing}"
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

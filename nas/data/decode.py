"""Image files decoded once, in parallel processes, into one file: a .npy array, then what could not be read as JSON."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.data.config import first_line
from nas.inputs import InputError
from nas.machine import cores, end_with_parent

if TYPE_CHECKING:
    from PIL.Image import Image

PARALLEL_FROM_BYTES = 8_000_000
BLOCK_BYTES = 4096

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""(height, width)"""
Map = Callable[[Callable[["Job"], "Outcome"], list["Job"]], Iterable["Outcome"]]


class Job(NamedTuple):
    """Rows `start`, `start + 1`, ... of the array in `file` are to hold the images at `paths`, see `read_image`."""

    file: str
    start: int
    paths: list[str]
    size: Size | None


class Outcome(NamedTuple):
    """`damaged`: position and reason; `unlike`: position and shape of an image that fits no row and ended the job."""

    damaged: list[tuple[int, str]]
    unlike: tuple[int, tuple[int, ...]] | None


class Decoded(NamedTuple):
    """`pixels`: uint8 (n, height, width, channels), memory-mapped; `damaged`: why rows at these positions are void."""

    pixels: Pixels
    damaged: dict[int, str]


def open_decoded(file: Path, count: int) -> Decoded | None:
    """What `decode` left in `file`; None if it is not there, not whole, or not of `count` images."""
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
        with open(file, "rb") as stream:
            stream.seek(pixels.offset + pixels.nbytes)
            tail = json.load(stream)
        shape, damaged = tuple(tail["shape"]), {int(position): str(reason) for position, reason in tail["damaged"]}
    except (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError, AttributeError, tokenize.TokenError):
        return None
    if pixels.dtype != np.uint8 or pixels.shape != shape or len(shape) != 4 or shape[0] != count:
        return None
    return Decoded(pixels, damaged)


def decode(paths: list[str], file_bytes: int, size: Size | None, file: Path) -> None:
    """Writes all images to `file`: grey (one channel) if all are, else RGB. The same file for the same images.

    Raises InputError if none can be read, or if they differ in size and `size` is None; OSError if the disk is full.
    """
    first, shape = _first(paths, size)
    everything = partial(_decode_all, paths, file_bytes, size, file, first)
    damaged = everything(shape)
    if damaged is None:
        shape = (*shape[:2], 3)
        damaged = everything(shape)
    with open(file, "ab") as stream:
        stream.write(json.dumps({"shape": [len(paths), *shape], "damaged": damaged}).encode())


def _first(paths: list[str], size: Size | None) -> tuple[int, tuple[int, ...]]:
    """Position and shape of the first image that can be read: it says what to expect of the others."""
    reason = ""
    for position, path in enumerate(paths):
        image = attempt(path, size)
        if not isinstance(image, str):
            return position, image.shape
        reason = reason or image
    raise InputError(f"data.root: none of the {len(paths)} images can be read, the first is {paths[0]}: {reason}")


def _decode_all(
    paths: list[str], file_bytes: int, size: Size | None, file: Path, first: int, shape: tuple[int, ...]
) -> list[tuple[int, str]] | None:
    """The damaged images; None if the rows have one channel and an image has three."""
    array = np.lib.format.open_memmap(file, "w+", np.uint8, (len(paths), *shape))
    offset, length = array.offset, array.nbytes
    del array
    if hasattr(os, "posix_fallocate"):
        # A sparse file on a full disk would end the process with SIGBUS.
        with open(file, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, offset + length)
    step = min(256, max(16, len(paths) // 64))
    jobs = [Job(str(file), i, paths[i : i + step], size) for i in range(0, len(paths), step)]
    parallel = max(file_bytes, len(paths) * BLOCK_BYTES) >= PARALLEL_FROM_BYTES
    if parallel and not multiprocessing.current_process().daemon:
        try:
            with _processes(len(jobs)) as processes:
                return _collect(processes, jobs, paths, first, shape)
        except BrokenProcessPool:
            logging.getLogger("nas").warning("data: a decoding process died; the images are decoded in this one")
    return _collect(map, jobs, paths, first, shape)


def _collect(
    run_all: Map, jobs: list[Job], paths: list[str], first: int, shape: tuple[int, ...]
) -> list[tuple[int, str]] | None:
    damaged: list[tuple[int, str]] = []
    with _progress(len(paths)) as advance:
        for job, outcome in zip(jobs, run_all(run, jobs), strict=True):
            damaged += outcome.damaged
            if outcome.unlike:
                position, other = outcome.unlike
                if other[:2] == shape[:2]:
                    return None
                sizes = [f"{path} is {x[1]} x {x[0]}" for path, x in ((paths[first], shape), (paths[position], other))]
                rule = "must be set where images differ in size (width x height): " + ", ".join(sizes)
                raise InputError(f"data.size is None, but {rule}")
            advance(len(job.paths))
    return damaged


def run(job: Job) -> Outcome:
    """Decodes one job, in any process. Ends early at an image of another size, or at a colour one if rows are grey."""
    rows = np.lib.format.open_memmap(job.file, "r+")
    damaged = []
    for position, path in enumerate(job.paths, job.start):
        image = attempt(path, job.size)
        if isinstance(image, str):
            damaged.append((position, image))
        elif image.shape[:2] != rows.shape[1:3] or image.shape[2] > rows.shape[3]:
            return Outcome(damaged, (position, image.shape))
        else:
            rows[position] = image
    return Outcome(damaged, None)


def attempt(path: str, size: Size | None) -> Pixels | str:
    """The image, or why it cannot be read: on damaged files, decoders raise whatever their format makes them meet."""
    try:
        return read_image(path, size)
    except Exception as error:  # noqa: BLE001
        return first_line(error).replace(repr(path), "").strip()


def read_image(path: str, size: Size | None) -> Pixels:
    """The picture in a file, see `fitted`."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as file:
            if size is not None:
                file.draft(None, (2 * max(size),) * 2)  # a large JPEG is decoded at a half, a quarter or an eighth
            return fitted(file, size)


def fitted(picture: Image, size: Size | None) -> Pixels:
    """The picture as uint8 (height, width, 1) if its mode is L, else (height, width, 3), upright as its EXIF tag says.

    With `size`, the largest centred area of its proportions is scaled to it (bicubic, antialiased).
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(picture)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range; must be an image of 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if size is not None:
        height, width = size
        wide = min(image.width, image.height * width / height)
        high = min(image.height, image.width * height / width)
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = left, top, left + wide, top + high
        image = image.resize((width, height), Image.Resampling.BICUBIC, box)
    pixels = np.array(image, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


@contextmanager
def _processes(jobs: int) -> Iterator[Map]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), jobs), context, _begin) as executor:
        try:
            yield partial(_mapped, executor)
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _mapped(executor: Executor, function: Callable[[Job], Outcome], jobs: list[Job]) -> Iterator[Outcome]:
    """The processes, which start here, do not run the user's script again, as spawned ones would, guarded or not."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        return executor.map(function, jobs)
    finally:
        sys.modules["__main__"] = script


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("decoding images", total=total)
        yield partial(progress.advance, task)

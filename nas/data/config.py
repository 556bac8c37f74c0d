"""The `data:` section of a study, and what sources do with it: their root folder, their package, the cache folder."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator

from nas.inputs import Config, InputError, path_rule


def _part(value: object) -> object:
    count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not count and not (isinstance(value, float) and 0 < value < 1):
        raise ValueError("a whole number from 1, or a share between 0 and 1")
    return value


class DataConfig(Config):
    """Which images a study uses, and how many of the training images it validates on.

    `validation` is a count of images or a share of the training set; `test` one of all images, where there are no test
    images (0.2 by default). `test`, `size` (pixels a side) and `corrupt` are read by imagefolder alone. Nothing is
    downloaded unless `download` is true.
    """

    source: str
    root: Annotated[str, path_rule("the path of a folder")] | None = None
    validation: Annotated[int | float, BeforeValidator(_part)] = 0.1
    test: Annotated[int | float, BeforeValidator(_part)] | None = None
    seed: Annotated[int, Ge(0)] = 0
    size: Annotated[int, Ge(1), Le(4096)] | None = None
    corrupt: Literal["refuse", "skip"] = "refuse"
    download: bool = False

    def folder(self, holds: str) -> Path:
        """The absolute root; InputError if there is none, saying what it `holds`."""
        if self.root is None:
            need = f"{self.source} needs the folder that holds {holds}"
            raise InputError(f"data.root is missing: {need}; write it into the study, or add --data-root FOLDER")
        return Path(os.path.abspath(self.root))


def needed(module: str, source: str, package: str) -> Any:
    """The module; InputError says what to install if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = f"needs {package}, which cannot be imported ({first_line(error)}): pip install {package}"
        raise InputError(f"data.source is {source!r}, which {rule}") from None


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its type if it says nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]

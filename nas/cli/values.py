"""What words on the command line stand for: numbers and paths, checked."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Callable


def positive(text: str) -> int:
    return _whole(text, 1)


def natural(text: str) -> int:
    return _whole(text, 0)


def tau(text: str) -> float:
    return _number(text, "a number from -1 to less than 1", lambda value: -1 <= value < 1)


def hours(text: str) -> float:
    return _number(text, "a number of hours above 0", lambda value: 0 < value < math.inf)


def _number(text: str, rule: str, is_legal: Callable[[float], bool]) -> float:
    with contextlib.suppress(ValueError):
        if is_legal(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"is {text!r}, but must be {rule}")


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number from {least} to 999999999")
    return int(text)


def weights(text: str) -> str:
    return path(text, "imagenet, a file or a folder")


def path(text: str, rule: str = "the path of a folder") -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be {rule}")
    return os.path.expanduser(text)

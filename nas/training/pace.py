"""How many threads a training on the CPU gets: a few steps are timed, once for a network on a machine."""

from __future__ import annotations

import copy
import hashlib
import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from nas.files import cache_folder, write_text
from nas.machine import keep_freed_memory, processor
from nas.training.recipe import Recipe
from nas.training.step import autocast, fast, layout, precision

logger = logging.getLogger(__name__)

_STEPS = 3
_MARGIN = 1.1


@contextmanager
def as_many_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_threads(network: nn.Module, name: str, recipe: Recipe, channels: int, resolution: int) -> int:
    """One, or as many as torch has now if those are a tenth faster: small networks lose more by waiting than they gain.

    Times `_STEPS` steps of a copy at either count, behind one that is not counted. The choice is kept in the cache
    under the network's `name`, because another number of threads would round otherwise.
    """
    most, kind = torch.get_num_threads(), str(precision(recipe, torch.device("cpu"))).removeprefix("torch.")
    if most == 1:
        return 1
    facts = (name, recipe.batch_size, recipe.channels_last, kind, resolution, most, processor(), torch.__version__)
    file = cache_folder() / "threads" / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    if not file.exists():
        write_text(file, str(_fastest(network, recipe, channels, resolution, kind)))
    kept = file.read_text(encoding="utf-8")
    return most if kept == str(most) else 1


def _fastest(network: nn.Module, recipe: Recipe, channels: int, resolution: int, kind: str) -> int:
    most = torch.get_num_threads()
    keep_freed_memory()
    rates = {count: recipe.batch_size / _seconds(network, recipe, channels, resolution, count) for count in (1, most)}
    best = most if rates[most] >= _MARGIN * rates[1] else 1
    counts = ", ".join(f"{rate:.0f} images/s with {count}" for count, rate in rates.items())
    logger.info("training in %s with %d of %d threads (%s)", kind, best, most, counts)
    return best


def _seconds(network: nn.Module, recipe: Recipe, channels: int, resolution: int, threads: int) -> float:
    """The median time of a step's forward and backward pass."""
    cpu = torch.device("cpu")
    trained = copy.deepcopy(network).to(cpu).to(memory_format=layout(recipe)).train()
    x = torch.zeros(recipe.batch_size, channels, resolution, resolution).contiguous(memory_format=layout(recipe))
    dtype, times = precision(recipe, cpu), []
    with as_many_threads(threads), torch.random.fork_rng(devices=[]), fast(trained, recipe, cpu):
        for _ in range(_STEPS + 1):
            start = time.perf_counter()
            with autocast(cpu, dtype):
                logits = trained(x)
            F.cross_entropy(logits.float(), torch.zeros(len(x), dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])

#!/usr/bin/env python
"""How long parameters and MACs of an architecture take: ours against ptflops, on the same random architectures.

    scripts/bench_costs.py [--json] [--n 200] [--seed 0]

Ours are timed as a search uses them: every distinct layer has been traced once before; what that took is printed
beside. ptflops has no memory: every network is counted anew. It gets them built, without weights (meta device), and
building is not on its clock.
Exits with 1 if a number differs, or if the ratio of the medians is below 1000.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch

from nas.architecture import Architecture
from nas.costs import cost
from nas.costs.check import on_meta, ptflops_counts
from nas.space import Space

SPACE = Path(__file__).parents[1] / "search_spaces" / "mobile_cifar.yaml"
LEAST_RATIO = 1000
T = TypeVar("T")


def ours(architecture: Architecture) -> tuple[int, int]:
    return cost(architecture, "params"), cost(architecture, "macs")


def timed(count: Callable[[T], tuple[int, int]], items: Iterable[T]) -> tuple[list[tuple[int, int]], float]:
    """What `count` gives for each, and the median seconds of a call."""
    counts, seconds = [], []
    for item in items:
        started = time.perf_counter()
        counts.append(count(item))
        seconds.append(time.perf_counter() - started)
    return counts, statistics.median(seconds)


def bench(n: int, seed: int) -> dict[str, Any]:
    """The medians of both on `n` random architectures of mobile_cifar."""
    space, rng = Space.load(SPACE), random.Random(seed)
    architectures = [space.sample(rng) for _ in range(n)]
    _, tracing = timed(ours, architectures)
    our_counts, mine = timed(ours, architectures)
    ptflops_counts(on_meta(architectures[0]))  # its imports are not on the clock
    their_counts, theirs = timed(ptflops_counts, map(on_meta, architectures))
    return {
        "ratio": round(theirs / mine, 1),
        "equal": our_counts == their_counts,
        "ours_us": round(mine * 1e6, 2),
        "ptflops_ms": round(theirs * 1e3, 2),
        "n": n,
        "seed": seed,
        "tracing_ms": round(tracing * 1e3, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Parameters and MACs of random architectures: ours against ptflops.")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--n", type=int, default=200, help="architectures (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    options = parser.parse_args()
    if options.n < 1:
        parser.error(f"--n is {options.n}, but must be at least 1")
    torch.set_num_threads(1)
    result = bench(options.n, options.seed)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['n']} architectures of {SPACE.stem}, seed {result['seed']}, median per architecture:")
        print(f"  ours     {result['ours_us']:10.2f} us   (with tracing, the first time: {result['tracing_ms']} ms)")
        print(f"  ptflops  {result['ptflops_ms']:10.2f} ms")
        print(f"  ratio    {result['ratio']:10.1f}      params and MACs equal: {'yes' if result['equal'] else 'NO'}")
    return 0 if result["equal"] and result["ratio"] >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())

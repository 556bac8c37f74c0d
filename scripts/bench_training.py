#!/usr/bin/env python
"""Images per second of our training loop against the loop that people copy, on this machine.

    scripts/bench_training.py [--json] [--rounds 3] [--seconds 15]

The other loop: torchvision's transforms on PIL images, a DataLoader with workers, NCHW, float32, SGD, on all cores.
Same network, batch and augmentation (crop by 4, flip); images of 32 x 32 with random pixels. The loops run by turns,
each in a process of its own, so that what else the machine does falls on both. An image's training counts three times
the network's MACs; the peak is that of a float32 product of two 2,048 x 2,048 matrices, on as many threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH = 64
NETWORKS: dict[str, dict[str, Any]] = {  # c, n, s of four stages of bottlenecks: about 1, 5, 20 and 90 M MACs
    "1 M": {"stem": 8, "t": 2, "stages": [(8, 1, 2), (16, 2, 2), (32, 3, 2), (48, 2, 1)]},
    "5 M": {"stem": 12, "t": 3, "stages": [(12, 1, 1), (20, 2, 2), (32, 2, 2), (56, 2, 2)]},
    "20 M": {"stem": 24, "t": 4, "stages": [(16, 1, 1), (20, 2, 1), (32, 2, 2), (56, 2, 2)]},
    "90 M": {"stem": 32, "t": 6, "stages": [(24, 1, 1), (32, 2, 1), (56, 3, 2), (96, 2, 2)]},
}


def architecture(name: str) -> Any:
    from nas.architecture import Architecture
    from nas.space import Space

    choice = NETWORKS[name]
    stages = [{"block": "bottleneck", "t": choice["t"], "c": c, "n": n, "s": s} for c, n, s in choice["stages"]]
    space = Space.from_dict(
        {
            "name": "bench",
            "in_channels": 3,
            "classes": 10,
            "resolution": 32,
            "stem": {"block": "conv", "k": 3, "c": choice["stem"]},
            "stages": stages,
            "head": [{"block": "classifier"}],
        },
        "bench",
    )
    found: Architecture = next(iter(space.enumerate()))
    return found


def images(count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def ours(name: str, count: int) -> float:
    """Images per second of an epoch behind a first one."""
    from nas.data.splits import Images
    from nas.network import build
    from nas.training import Normalisation, Recipe, train

    recipe = Recipe(epochs=2, batch_size=BATCH, lr=0.01, crop=4, flip=True)
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    curve = train(
        build(architecture(name), 0), Images(*images(count)), None, recipe, normalisation=normalisation, resolution=32
    )
    return count / curve[1].seconds


def copied(name: str, count: int) -> float:
    """The same of the usual loop; the second epoch includes the start of its workers, as each does there."""
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from nas.machine import cores
    from nas.network import build

    pixels, labels = images(count)
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )

    class Pictures(Dataset[Any]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return transform(Image.fromarray(pixels[index])), int(labels[index])

    torch.manual_seed(0)
    network = build(architecture(name), 0).train()
    loader = DataLoader(Pictures(), BATCH, shuffle=True, num_workers=cores())
    optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for x, y in loader:
            optimiser.zero_grad()
            loss = F.cross_entropy(network(x), y)
            loss.backward()
            optimiser.step()
            loss.item()
        seconds = time.perf_counter() - start
    return count / seconds


def peak() -> float:
    """Multiply-adds per second of a float32 product of matrices, the best of ten."""
    import torch

    a, b, best = torch.randn(2048, 2048), torch.randn(2048, 2048), 0.0
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = max(best, 2048**3 / (time.perf_counter() - start))
    return best


LOOPS: dict[str, Callable[..., float]] = {"ours": ours, "copied": copied, "peak": peak}


def measured(loop: str, *arguments: Any) -> float:
    """In a process of its own, with as many threads as there are cores."""
    command = [sys.executable, __file__, "--only", loop, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this very script
    return float(done.stdout)


def only(loop: str, *arguments: str) -> None:
    import torch

    from nas.machine import cores

    torch.set_num_threads(cores())
    print(LOOPS[loop](*(int(x) if x.isdigit() else x for x in arguments)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of both loops, of which the median counts")
    parser.add_argument("--seconds", type=float, default=15, help="aimed at for an epoch of the slower loop")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        return only(*options.only)
    from nas.costs import costs
    from nas.machine import cores, hardware, versions

    top, networks = measured("peak"), {}
    for name in NETWORKS:
        macs = costs(architecture(name))["macs"]
        count = int(max(512, measured("copied", name, 512) * options.seconds))
        turns = [(measured("ours", name, count), measured("copied", name, count)) for _ in range(options.rounds)]
        mine, theirs = (statistics.median(x) for x in zip(*turns, strict=True))
        networks[name] = {
            "macs": macs,
            "ours": round(mine, 1),
            "copied": round(theirs, 1),
            "ratio": round(statistics.median(a / b for a, b in turns), 2),
            "ours_of_peak": round(3 * macs * mine / top, 3),
            "copied_of_peak": round(3 * macs * theirs / top, 3),
        }
        if not options.json:
            print(
                f"{name} MACs ({macs:,}): {mine:.0f} against {theirs:.0f} images/s, {networks[name]['ratio']} times",
                flush=True,
            )
    result = {
        "networks": networks,
        "geometric_mean": round(statistics.geometric_mean(x["ratio"] for x in networks.values()), 2),
        "peak_macs_per_second": round(top),
        "batch_size": BATCH,
        "threads": cores(),
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps(result, indent=2) if options.json else f"geometric mean {result['geometric_mean']}")
    return None


if __name__ == "__main__":
    main()

"""Several processes that train one network, as torchrun starts them: each takes its part of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """This process' number among the `size` that train together; the first writes the files."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def least(self) -> int:
        """Images that a batch needs: two for the batch normalisation of each process."""
        return 2 * self.size

    def part(self, start: int, stop: int) -> tuple[int, int]:
        """Of the images `start` to `stop` - 1 those of this process, one more in some than in others."""
        count = stop - start
        return start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages the gradients of all processes."""
        return network if self.size == 1 else DistributedDataParallel(network)

    def add(self, value: Tensor) -> None:
        """Puts the sum over all processes in its place."""
        if self.size > 1:
            dist.all_reduce(value)

    def told(self, measure: Callable[[], tuple[float, float]], device: torch.device) -> tuple[float, float]:
        """What the first process measures, everywhere."""
        if self.size == 1:
            return measure()
        values = torch.tensor(measure() if self.first else (0.0, 0.0), dtype=torch.float64, device=device)
        dist.broadcast(values, 0)
        return values[0].item(), values[1].item()

    def send(self, values: list[Tensor]) -> None:
        """Puts those of the first process in the place of the others'."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def leads() -> bool:
    """Whether this process is the first of those that torchrun started, or was started by itself."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def together(device: torch.device | str) -> Iterator[tuple[Group, torch.device]]:
    """The processes that torchrun started with this one, and the GPU of this one where `device` is cuda."""
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()

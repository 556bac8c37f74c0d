"""The machine: what is asked of its allocator."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

from nas import machine
from nas.machine import keep_freed_memory, version_of


def test_a_package_that_another_distribution_brings_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "packages_distributions", lambda: {"onnxruntime": ["torch"]})
    monkeypatch.setattr(machine, "version", raises_for_onnxruntime)
    assert version_of("onnxruntime") == f"torch {version('torch')}"
    assert version_of("torch") == version("torch")
    monkeypatch.setattr(machine, "packages_distributions", dict)
    assert version_of("onnxruntime") == "not installed"


def raises_for_onnxruntime(name: str) -> str:
    if name == "onnxruntime":
        raise PackageNotFoundError(name)
    return version(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_large_tensors_come_from_memory_that_was_freed() -> None:
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(2):
            _kept = [torch.ones(2**20 * mega) for mega in (20, 10, 15)]  # 180 MB: 46,080 pages of 4 kB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    assert min(faults() for _ in range(6)) < 10_000  # the first ones grow the heap, also where others have left holes

"""What a number was measured on, and what is asked of the machine: to leave freed memory with us, and no process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import threading
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

_PACKAGES = ("mobile-nas", "torch", "torchvision", "optuna", "numpy")


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 2**26
_PR_SET_PDEATHSIG = 1


@cache
def keep_freed_memory() -> None:
    """Tells glibc's malloc to keep what is freed, for this process; does nothing where there is no glibc.

    By default every tensor beyond 32 MB is mapped anew and touched page by page: at 128 images of 32 x 32 and 11 M MACs
    that was 139,000 page faults a step, and training ran at 0.76 of the speed.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD)):
        mallopt(parameter, value)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = version_of(package)
    return found


def version_of(package: str) -> str:
    """The version of an installed package, with the name of its distribution where that has another."""
    try:
        return version(package)
    except PackageNotFoundError:
        brought_by = packages_distributions().get(package, [])  # onnxruntime by onnxruntime-gpu
        # Nothing brings a checkout on PYTHONPATH.
        return f"{brought_by[0]} {version(brought_by[0])}" if brought_by else "not installed"


def end_with_parent() -> None:
    """Ends this process, which multiprocessing began, as soon as the one that began it is gone."""
    if sys.platform == "linux":  # also while it is stopped, or its thread below cannot run
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, str | int]:
    """Processor, usable cores, system, memory in bytes, and the GPU where there is one."""
    import torch

    facts: dict[str, str | int] = {"processor": processor(), "cores": cores(), "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets by Linux's names; none where it does not say."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


@cache
def _cpuinfo(name: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""

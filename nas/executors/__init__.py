"""Where candidates are trained. A new place: one file here, one line in EXECUTORS."""

from collections.abc import Callable, Mapping
from typing import Any

from nas.executors.executor import Executor as Executor
from nas.executors.processes import Processes
from nas.executors.ray import Ray
from nas.executors.serial import Serial
from nas.inputs import check_options, choices, refuse

EXECUTORS: dict[str, Callable[..., Executor]] = {"serial": Serial, "processes": Processes, "ray": Ray}
"""An executor is made of an evaluator, the number of workers, and keyword arguments with defaults: its options."""


def check_executor(name: str, options: Mapping[str, Any], where: str) -> None:
    """Raises InputError for an unknown executor, or an option that it does not have or that is not legal."""
    if name not in EXECUTORS:
        raise refuse(f"{where}.name", name, choices(EXECUTORS))
    executor: Any = EXECUTORS[name]
    check_options(executor.__init__, {"evaluator", "workers"}, options, where, name)

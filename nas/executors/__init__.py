"""Where candidates are trained. A new place: one file here, one line in EXECUTORS."""

from collections.abc import Callable

from nas.evaluation import Evaluator
from nas.executors.executor import Executor as Executor
from nas.executors.processes import Processes
from nas.executors.serial import Serial

EXECUTORS: dict[str, Callable[[Evaluator, int], Executor]] = {"serial": Serial, "processes": Processes}

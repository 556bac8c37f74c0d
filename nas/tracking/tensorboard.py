"""TensorBoard: accuracy, costs and seconds by number of the proposal."""

from __future__ import annotations

from pathlib import Path

from nas.inputs import InputError
from nas.study import Told
from nas.tracking.tracker import MEASURED, Tracker, accuracy_name


class _TensorBoard(Tracker):
    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("tensorboard is not installed: pip install 'mobile-nas[tensorboard]'") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def tell(self, told: Told) -> None:
        if told.outcome not in MEASURED or told.accuracy is None:
            return
        add = self.writer.add_scalar
        add(f"{accuracy_name(told)}/{told.outcome}", told.accuracy, told.number)
        add("seconds", told.seconds, told.number)
        if told.outcome == "trained":
            for name, value in told.costs.items():
                add(f"cost/{name}", value, told.number)

    def close(self) -> None:
        self.writer.close()


def tensorboard(folder: Path, study: str) -> Tracker:
    """Events into the run's folder `tensorboard`: look at them with `tensorboard --logdir RUN`."""
    return _TensorBoard(folder)

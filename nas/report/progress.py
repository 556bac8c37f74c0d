"""A search and a training as they are watched in the terminal; one plain line per event where it is none."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nas.study import Study, Told
from nas.training import Epoch


class _Watch:
    """A progress bar on stderr, or lines."""

    def __init__(self, what: str) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console, disable=not self.live)
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, done: int, total: int, note: str) -> None:
        if self.task is None:
            self.task = self.bar.add_task("", total=total, note="")
        self.bar.update(self.task, completed=done, total=total, note=note)

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


class SearchWatch(_Watch):
    """Rate, best so far, time left, and what was skipped."""

    def __init__(self) -> None:
        super().__init__("candidates")
        self.study: Study | None = None
        self.best: Told | None = None
        self.seconds: list[float] = []
        self.skipped = 0

    def start(self, study: Study) -> None:
        self.study = study
        space = study.space
        self.line(f"space {space.name}: {space.size:.4g} architectures; run {study.run.folder}")

    def told(self, told: Told) -> None:
        assert self.study is not None
        if told.outcome == "trained":
            self.seconds.append(told.seconds)
            if self.best is None or (told.accuracy or 0) > (self.best.accuracy or 0):
                self.best = told
        else:
            self.skipped += 1
        wanted = self.study.config.trials
        left = ""
        if self.seconds:
            rate = sum(self.seconds) / len(self.seconds)
            minutes = rate * max(0, wanted - self.study.trained) / 60 / self.study.config.workers
            left = f"{rate:.0f} s each, about {minutes:.0f} min left"
        best = f"best {self.best.accuracy:.4f} at {self.best.costs['params']:,} params" if self.best else ""
        self.show(self.study.trained, wanted, " | ".join(filter(None, [best, left, f"{self.skipped} not trained"])))
        if told.outcome == "failed" or (not self.live and told.outcome == "trained"):
            result = f"accuracy {told.accuracy:.4f}" if told.accuracy is not None else told.reason
            costs = f"{told.costs['params']:,} params, {told.costs['macs']:,} MACs"
            self.line(f"{self.study.trained}/{wanted} {told.outcome} {told.id}: {result}, {costs} | {best} | {left}")


class TrainingWatch(_Watch):
    """Loss and accuracy by epoch."""

    def __init__(self, epochs: int) -> None:
        super().__init__("epochs")
        self.epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        note = f"loss {epoch.train_loss:.3f}, accuracy {epoch.train_accuracy:.4f}"
        if epoch.validation_accuracy is not None:
            note += f", validation {epoch.validation_accuracy:.4f}"
        minutes = epoch.seconds * (self.epochs - epoch.epoch) / 60
        note += f" | {epoch.seconds:.0f} s, about {minutes:.0f} min left"
        self.show(epoch.epoch, self.epochs, note)
        if not self.live:
            self.line(f"epoch {epoch.epoch}/{self.epochs}: {note}")

"""A search and a training as they are watched: a bar in a terminal, one plain line per event elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn
from rich.progress import TextColumn as Text
from rich.text import Text as Plain

from nas.report.sketch import MEMBER, TRAINED, sketch
from nas.study import Study, Told
from nas.training import Epoch
from nas.trust import Experiment, Step

BAR_WIDTH = 12
SEPARATOR = " | "
SKETCH_LINES, SKETCH_WIDTH = 20, 72


class _Bar(Progress):
    """With lines below it."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.below:
            yield Plain("\n".join(self.below))


class Watch:
    """A bar on stderr, from the first `show` on; `line` prints above it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal
        columns = (MofNCompleteColumn(), BarColumn(BAR_WIDTH), TimeElapsedColumn(), Text("{task.fields[note]}"))
        self.bar = _Bar(*columns, console=self.console, refresh_per_second=2)
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.task is not None:
            self.bar.stop()

    def show(self, done: int, total: int, notes: Sequence[str]) -> None:
        """The state; of the notes as many as the terminal is wide."""
        if not self.live:
            return
        if self.task is None:
            self.task = self.bar.add_task("", total=total, note="")
            self.bar.start()
        room = self.console.width - len(f"{done}/{total}") - BAR_WIDTH - len(" 0:00:00  ")
        fitting = [text for text in accumulate(notes, lambda text, note: text + SEPARATOR + note) if len(text) <= room]
        self.bar.update(self.task, completed=done, total=total, note=fitting[-1] if fitting else "")

    def progress(self, what: str, done: int, total: int) -> None:
        """Of measuring latencies: a line that the next one, or whatever else is said, takes the place of."""
        if self.live:
            text = f"measuring {what}: {done:,} of {total:,}" if done < total else ""
            self.console.print(text, end="\033[K\r", soft_wrap=True)

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


class SearchWatch(Watch):
    """Best so far, rate, time left, and how many proposals were not trained; in a terminal of SKETCH_LINES lines or
    more the front, too, and how many are in training."""

    def __init__(self) -> None:
        super().__init__()
        self.study: Study | None = None
        self.seconds: list[float] = []
        self.skipped = 0
        self.best: Told | None = None

    def start(self, study: Study) -> None:
        self.study = study
        trials = study.study.get_trials(deepcopy=False)
        outcomes = [trial.user_attrs.get("outcome") for trial in trials]
        done, wanted = sum(outcome in {"trained", "cut"} for outcome in outcomes), study.config.trials
        size = f"{study.space.size:,}" if study.space.size < 10**9 else f"{study.space.size:.2g}"
        before = f"{done} of {wanted} candidates were trained before" if trials else f"{wanted} candidates to train"
        self.line(f"space {study.space.name}: {size} architectures; {before}; results in {study.run.folder}")
        if done < wanted:
            self.show(done, wanted, [])

    def told(self, told: Told) -> None:
        assert self.study is not None
        if told.outcome in {"trained", "cut"}:
            self.seconds.append(told.seconds)
        elif told.confirms is None:
            self.skipped += 1
        done, wanted = self.study.trained, self.study.config.trials
        pace = self._pace(self.study) if told.confirms is None else ["measuring the front again"]
        notes = [*self._best(self.study, told), *pace]
        if self.live and told.outcome in {"trained", "cut", "failed"}:  # most proposals of some spaces are impossible
            self.bar.below = self._sketch(self.study)
        self.show(done, wanted, [*notes, *([f"{self.skipped} not trained"] if self.skipped else [])])
        measured = told.outcome in {"trained", "cut", "confirmation"}
        if told.outcome == "failed" or (measured and not self.live):
            is_final = told.outcome in {"trained", "confirmation"}
            result = f"accuracy {told.accuracy:.4f}" if is_final else told.reason
            costs = f"{told.costs['params']:,} params, {told.costs['macs']:,} MACs"
            self.line(SEPARATOR.join([f"{done}/{wanted} {told.outcome} {told.id}: {result}, {costs}", *notes]))

    def _best(self, study: Study, told: Told) -> list[str]:
        """Of the trained; after the first look at the record, which may be long, only what is new is compared."""
        for each in [told] if self.best else study.record.values():
            if each.outcome == "trained" and (self.best is None or (each.accuracy or 0) > (self.best.accuracy or 0)):
                self.best = each
        return [] if self.best is None else [f"best {self.best.accuracy:.4f} at {self.best.costs['params']:,} params"]

    def _sketch(self, study: Study) -> list[str]:
        if self.console.height < SKETCH_LINES:
            return []
        name = next((name for name in study.config.objectives if name != "accuracy"), "params")
        trained = [told for told in study.record.values() if told.outcome == "trained" and told.accuracy is not None]
        costs, accuracies = [told.costs[name] for told in trained], [told.accuracy or 0.0 for told in trained]
        lines = sketch(costs, accuracies, name, min(self.console.width, SKETCH_WIDTH))
        about = f"{MEMBER} front, {TRAINED} trained ({len(trained)}), {len(study.pending)} in training"
        return [*lines, f"{'':9}{about}"] if lines else []

    def _pace(self, study: Study) -> list[str]:
        if not self.seconds or study.executor is None:
            return []
        each = sum(self.seconds) / len(self.seconds)
        left = max(0, study.config.trials - study.trained)
        return [f"{duration(each)} each, {duration(each * left / study.executor.workers)} left"]


class TrainingWatch(Watch):
    """Loss, accuracy and time left, by epoch."""

    def __init__(self, parts: Sequence[tuple[int, float]]) -> None:
        """Of `RetrainConfig.parts`. An epoch is expected to take time by the square of its resolution."""
        super().__init__()
        self.epochs = parts[-1][0]
        self.work = [next(x for last, x in parts if number <= last) ** 2 for number in range(1, self.epochs + 1)]
        self.trained = False

    def __enter__(self) -> Self:
        self.show(0, self.epochs, [])
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.live.transient = not self.trained  # one that was finished before leaves no bar
        super().__exit__(*error)

    def epoch(self, epoch: Epoch) -> None:
        self.trained = True
        result = f"loss {epoch.train_loss:.3f}, accuracy {epoch.train_accuracy:.4f}"
        if epoch.validation_accuracy is not None:
            result += f", validation {epoch.validation_accuracy:.4f}"
        left = epoch.seconds * sum(self.work[epoch.epoch :]) / self.work[epoch.epoch - 1]
        notes = [result, f"{duration(epoch.seconds)} each, {duration(left)} left"]
        self.show(epoch.epoch, self.epochs, notes)
        if not self.live:
            self.line(f"epoch {epoch.epoch}/{self.epochs}: {SEPARATOR.join(notes)}")


class TrustWatch(Watch):
    """The last accuracy, and time left by the epochs that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = 1
        self.seconds = self.epochs = 0.0

    def start(self, experiment: Experiment) -> None:
        self.workers = 1 if experiment.executor == "serial" else experiment.workers
        count, done = len(experiment.members), experiment.done
        before = f", {done} of {2 * count} before" if done else ""
        self.line(f"{count} candidates, each trained short and long{before}; results in {experiment.folder}")

    def step(self, step: Step) -> None:
        found = step.measurement
        self.seconds, self.epochs = self.seconds + found.seconds, self.epochs + found.epochs
        result = f"accuracy {found.accuracy:.4f}" if found.failure is None else f"failed: {found.failure}"
        notes = [f"{step.kind} {step.id}: {result}"]
        if self.epochs:
            each = self.seconds / self.epochs
            notes += [f"{each:.2g} s an epoch, {duration(each * step.epochs_left / self.workers)} left"]
        self.show(step.done, step.total, notes)
        if found.failure is not None or not self.live:
            self.line(f"{step.done}/{step.total} {SEPARATOR.join(notes)}")


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"

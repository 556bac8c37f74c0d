"""A run: the folder in which a study leaves its results. The Optuna storage in it is the record; tables are views."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial

from nas import pareto
from nas.architecture import Architecture
from nas.config import StudyConfig
from nas.files import write_text
from nas.inputs import InputError, read_yaml, refuse
from nas.space import Space

logger = logging.getLogger("nas")
JOURNAL = "journal.log"


@dataclass(frozen=True)
class Run:
    """A run folder. `create` for a search, `open` to look at it."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, config: StudyConfig) -> Run:
        """A new run, or the one that is there if it is of the same study. Raises InputError if it is of another."""
        run = cls(folder)
        if run.study_file.exists():
            before, now = run.config.fixed(), config.fixed()
            for key in now:
                if before[key] != now[key]:
                    raise InputError(
                        f"{folder}: was begun with another study: {key} is {json.dumps(before[key])} there and "
                        f"{json.dumps(now[key])} now; choose another folder with --run"
                    )
            if read_yaml(run.space_file) != read_yaml(config.space):
                raise InputError(f"{folder}: was begun with another space; choose another folder with --run")
            root = config.data.root
            updates = {"data": run.config.data.model_copy(update={"root": root})} if root else {}
            changed = {name: getattr(config, name) for name in ("trials", "workers", "retrain", "device")}
            write_text(run.study_file, run.config.model_copy(update=updates | changed).to_yaml())
            run.__dict__.pop("config", None)
            return run
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(run.space_file, Path(config.space).read_text(encoding="utf-8"))
            write_text(run.study_file, config.to_yaml())
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Raises InputError if the folder holds no run."""
        run = cls(Path(folder))
        if not run.study_file.is_file():
            raise InputError(
                f"{folder}: is not a run: it has no {run.study_file.name}; begin one with: nas search STUDY"
            )
        return run

    @property
    def study_file(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def space_file(self) -> Path:
        return self.folder / "space.yaml"

    @cached_property
    def config(self) -> StudyConfig:
        return StudyConfig.of(read_yaml(self.study_file), str(self.study_file))

    def space(self, in_channels: int | None = None, classes: int | None = None) -> Space:
        return Space.load(self.space_file, in_channels, classes)

    def candidate_folder(self, number: int) -> Path:
        """Where a candidate in training keeps its checkpoint."""
        return self.folder / "candidates" / f"{number:05d}"

    def forget_candidate(self, number: int) -> None:
        shutil.rmtree(self.candidate_folder(number), ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One driver at a time; the lock ends with its process. Raises InputError if another one has it."""
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.folder}: is being searched by another process; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def open_storage(self, repair: bool = False) -> BaseStorage:
        """The Optuna storage: the journal in the folder, or the study's `storage` URL.

        `repair` (only under the lock) mends what a killed writer leaves: its journal lock, and half a last line.
        """
        if self.config.storage:
            try:
                return optuna.storages.get_storage(self.config.storage)
            except Exception as error:  # noqa: BLE001 - drivers raise their own kinds
                reason = str(error).splitlines()[0]
                raise InputError(f"study {self.config.name}: storage {self.config.storage!r}: {reason}") from None
        journal = self.folder / JOURNAL
        if repair:
            for lock in self.folder.glob(f"{JOURNAL}.lock*"):
                lock.unlink(missing_ok=True)
            mend_journal(journal)
        elif not journal.exists():
            raise InputError(f"{self.folder}: has no {JOURNAL} yet: the search has not begun")
        try:
            return JournalStorage(JournalFileBackend(str(journal)))
        except ValueError as error:
            raise InputError(f"{journal}: is damaged in the middle ({error}); restore it from a copy") from None

    def all_trials(self) -> list[FrozenTrial]:
        storage = self.open_storage()
        try:
            return storage.get_all_trials(storage.get_study_id_from_name(self.config.name), deepcopy=False)
        except KeyError:
            raise InputError(f"{self.folder}: its storage has no study named {self.config.name}") from None

    def trials(self) -> pd.DataFrame:
        """One row per proposal: number, id, outcome, accuracy, the costs, reason, epochs, seconds, architecture."""
        return trials_table(self.all_trials())

    def front(self) -> pd.DataFrame:
        """The non-dominated among the trained candidates, by the first cost (or accuracy), the knee marked."""
        return front_table(self.trials(), self.config.objectives)

    def pick(self, which: str) -> tuple[Architecture, pd.Series[Any]]:
        """A member of the front by `knee` or `best` (accuracy), or any trained candidate by the start of its id."""
        trials = self.trials()
        front = front_table(trials, self.config.objectives)
        if front.empty:
            raise InputError(f"{self.folder}: has no trained candidate yet")
        if which == "knee":
            row = front[front["knee"]].iloc[0]
        elif which == "best":
            row = front.sort_values("accuracy", ascending=False).iloc[0]
        else:
            found = trials[(trials["outcome"] == "trained") & trials["id"].str.startswith(which)]
            if not which or found["id"].nunique() != 1:
                raise refuse("--pick", which, f"knee, best, or the id of one trained candidate of {self.folder}")
            row = found.iloc[0]
        return Architecture.from_json(row["architecture"]), row


def mend_journal(journal: Path) -> None:
    """Cuts half a last line off a journal (a torn write) and keeps it beside: appending to it would spoil the file."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines(keepends=True)
    while lines and not _is_json(lines[-1]):
        whole -= len(lines.pop())
    if whole < len(content):
        journal.with_suffix(".torn").write_bytes(content[whole:])
        logger.warning(f"{journal}: its last line was torn; it is now in {journal.with_suffix('.torn').name}")
        with open(journal, "r+b") as file:
            file.truncate(whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def trials_table(trials: list[FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in trials:
        candidate = trial.user_attrs.get("candidate", {})
        rungs = trial.user_attrs.get("rungs", [])
        last = rungs[-1] if rungs else {}
        outcome = trial.user_attrs.get("outcome", "running")
        architecture = candidate.get("architecture")
        rows.append(
            {
                "number": trial.number,
                "id": candidate.get("id", ""),
                "outcome": outcome,
                "accuracy": last.get("accuracy") if outcome == "trained" else None,
                **candidate.get("costs", {}),
                "reason": trial.user_attrs.get("reason", ""),
                "epochs": last.get("epochs", 0),
                "seconds": sum(rung["seconds"] for rung in rungs),
                "stages": str(Architecture.from_dict(architecture)) if architecture else "",
                "rungs": json.dumps(rungs),
                "architecture": json.dumps(architecture) if architecture else "",
            }
        )
    columns = ["number", "id", "outcome", "accuracy", "reason", "epochs", "seconds", "stages", "rungs", "architecture"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    return table.astype({"accuracy": float})


def front_table(trials: pd.DataFrame, objectives: list[str]) -> pd.DataFrame:
    trained = trials[trials["outcome"] == "trained"].drop_duplicates("id")
    if trained.empty:
        return trained.assign(knee=pd.Series(dtype=bool))
    maximise = [name == "accuracy" for name in objectives]
    values = trained[objectives].to_numpy(float)
    front = trained[pareto.front(values, maximise)]
    costs = [name for name in objectives if name != "accuracy"]
    front = front.sort_values([*costs[:1], "accuracy"], ascending=[True] * len(costs[:1]) + [False])
    # The knee on log scales: halving the error weighs like halving a cost.
    seen = front[objectives].assign(accuracy=(1 - front["accuracy"]).clip(lower=1e-4)).to_numpy(float)
    knee = pareto.knee(seen, [False] * len(objectives), [True] * len(objectives))
    front = front.reset_index(drop=True)
    return front.assign(knee=front.index == knee)

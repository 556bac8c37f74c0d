"""A run: the folder in which a study leaves its results. The Optuna storage in it is the record; tables are views."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from nas.architecture import Architecture
from nas.config import Overrides, StudyConfig, as_lines, overridden
from nas.evaluation import ERROR_FILE
from nas.files import sweep, write_text
from nas.inputs import InputError, damaged, read_yaml, refuse
from nas.latency import Latency
from nas.space import Space
from nas.storages import locked, open_database, open_journal
from nas.tables import front_table, receipt, trials_table

JOURNAL = "journal.log"


@dataclass(frozen=True)
class Run:
    """A run folder. `create` for a search, `open` to look at it.

    `overrides` (`key.path=value`) stand in place of what its study says, and are not written down.
    """

    folder: Path
    overrides: tuple[str, ...] = ()

    @classmethod
    def create(cls, folder: Path, config: StudyConfig) -> Run:
        """A new run, or the one that is there, with what may change as it is in `config`. Belongs under its `lock`.

        Raises InputError if the one that is there is of another study or space, or the folder cannot be written.
        """
        run = cls(folder)
        try:
            if run.study_file.exists():
                run._refuse_other(config)
                if config.data.root is None:
                    config = config.model_copy(update={"data": run.config.data})
            elif run.space_file.exists() and read_yaml(run.space_file) != read_yaml(config.space):
                raise InputError(f"{folder}: is no run, but has a {run.space_file.name}; choose another with --run")
            else:
                write_text(run.space_file, Path(config.space).read_text(encoding="utf-8"))
            write_text(run.study_file, config.to_yaml())
            sweep(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
        return cls(folder)

    @classmethod
    def open(cls, folder: Path | str, overrides: Overrides = ()) -> Run:
        """Raises InputError if the folder holds no run."""
        run = cls(Path(folder), as_lines(overrides))
        if not run.study_file.is_file():
            raise InputError(
                f"{folder}: is not a run: it has no {run.study_file.name}; begin one with: nas search STUDY"
            )
        return run

    def _refuse_other(self, config: StudyConfig) -> None:
        before = {**self.config.fixed(), "space": read_yaml(self.space_file)}
        refuse_changes(self.folder, "another study", before, {**config.fixed(), "space": read_yaml(config.space)})

    @property
    def study_file(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def space_file(self) -> Path:
        return self.folder / "space.yaml"

    @cached_property
    def config(self) -> StudyConfig:
        return StudyConfig.of(overridden(read_yaml(self.study_file), self.overrides), str(self.study_file))

    @property
    def latency_file(self) -> Path:
        return self.folder / "latency.json"

    @cached_property
    def latency(self) -> Latency | None:
        """What the search predicts latencies with, as it was when it began; None if it does not.

        Raises InputError if the file is damaged.
        """
        if self.config.latency is None:
            return None
        file = self.latency_file
        rule = "begin the search in another folder with --run"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}; {rule}") from None
        with damaged(str(file), rule):
            return Latency.of_dict(json.loads(text), str(file))

    @property
    def measured_file(self) -> Path:
        return self.folder / "measured.json"

    def measured(self) -> dict[str, dict[str, float]]:
        """Whole networks of the front as they were measured, by id: ms, and the interval from low_ms to high_ms; where
        the study wants int8 also int8_ms, int8_low_ms and int8_high_ms."""
        if not self.measured_file.is_file():
            return {}
        with damaged(str(self.measured_file), "delete it and run nas search again"):
            data = json.loads(self.measured_file.read_text(encoding="utf-8"))
            times = ("ms", "low_ms", "high_ms")
            keys = [*times, *(f"int8_{name}" for name in times if self.config.latency and self.config.latency.int8)]
            return {str(name): {key: float(value[key]) for key in keys} for name, value in data.items()}

    def space(self, in_channels: int | None = None, classes: int | None = None) -> Space:
        return Space.load(self.space_file, in_channels, classes)

    def candidate_folder(self, number: int) -> Path:
        """Where a candidate in training keeps its checkpoint."""
        return self.folder / "candidates" / f"{number:05d}"

    def clear_candidate(self, number: int) -> None:
        """Removes what a candidate in training kept, but not the traceback of its failure."""
        folder = self.candidate_folder(number)
        if (folder / ERROR_FILE).exists():
            for file in folder.iterdir():
                if file.name != ERROR_FILE:
                    file.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_candidates(self, busy: Collection[int]) -> None:
        """What a search that was stopped had no time for: clears all but those in training."""
        for folder in (self.folder / "candidates").glob("[0-9]*"):
            if int(folder.name) not in busy:
                self.clear_candidate(int(folder.name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One driver at a time; the lock ends with its process. Makes the folder.

        Raises InputError if another process has it, or the folder cannot be written.
        """
        with locked(self.folder / "run.lock", "searched"):
            yield

    def open_storage(self, repair: bool = False) -> BaseStorage:
        """The Optuna storage: the journal in the folder, or the study's `storage` URL.

        `repair` (only under the lock) mends what a killed writer leaves: its journal lock, and half a last line.
        Raises InputError if it cannot be opened.
        """
        if self.config.storage:
            return open_database(self.config.storage, f"study {self.config.name}: storage")
        journal = self.folder.absolute() / JOURNAL
        if not repair and not journal.exists():
            raise InputError(f"{self.folder}: has no {JOURNAL} yet: the search has not begun")
        return open_journal(journal, repair)

    def record(self) -> tuple[list[FrozenTrial], list[float], str | None]:
        """The trials, in the order of the numbers, not to be changed; when the search was begun and gone on with, in
        seconds since 1970; and how it ended: `complete`, or why it stopped before (empty: it has not ended; None: an
        earlier version did not note it). Raises InputError if there is none."""
        storage = self.open_storage()
        try:
            study = storage.get_study_id_from_name(self.config.name)
        except KeyError:
            raise InputError(f"{self.folder}: its storage has no study named {self.config.name}") from None
        attrs = storage.get_study_user_attrs(study)  # first: of a search that has ended, all trials are there
        return storage.get_all_trials(study, deepcopy=False), attrs.get("sittings", []), attrs.get("ended")

    def all_trials(self) -> list[FrozenTrial]:
        """The trials of the `record`."""
        return self.record()[0]

    def trials(self) -> pd.DataFrame:
        """One row per proposal, see `trials_table`."""
        return trials_table(self.all_trials())

    def front(self) -> pd.DataFrame:
        """The non-dominated among the trained candidates, see `front_table`."""
        return self.front_of(self.trials())

    def front_of(self, trials: pd.DataFrame) -> pd.DataFrame:
        """The front of this run's trials; where latency is a cost, with `measured_ms` of whole networks beside it, and
        `latency_int8_ms` where the study wants int8. Both are missing until the search has measured them."""
        front = front_table(trials, self.config.objectives)
        if self.config.latency is None:
            return front
        measured = self.measured()
        columns = {"measured_ms": "ms", **({"latency_int8_ms": "int8_ms"} if self.config.latency.int8 else {})}
        for name, key in columns.items():
            known = [measured.get(each, {}).get(key) for each in front["id"]]
            front = front.assign(**{name: pd.Series(known, index=front.index, dtype="Float64")})
        return front

    def _repr_html_(self) -> str:
        """For notebooks: the front, the numbers that matter."""
        front = self.front()
        shown = front[["id", *dict.fromkeys(["accuracy", "params", "macs", *self.config.objectives]), "knee"]]
        return f"<p><b>{html.escape(self.config.name)}</b>: {len(front)} on the front</p>{shown.to_html(index=False)}"

    def receipt(self, trials: pd.DataFrame, front: pd.DataFrame) -> dict[str, Any]:
        """What its rungs saved, given its tables, see `nas.tables.receipt`."""
        return receipt(trials, front, self.config.proxy.ladder(), self.config.proxy.seeds)

    def pick(self, which: str) -> tuple[Architecture, pd.Series[Any]]:
        """A member of the front by `knee` or `best` (accuracy), or any trained candidate by the start of its id.

        The second is its row of the table. Raises InputError if there is none, or more than one such candidate.
        """
        trials = self.trials()
        trained = trials[trials["outcome"] == "trained"]
        if trained.empty:
            raise InputError(f"{self.folder}: has no trained candidate yet")
        if which in {"knee", "best"}:
            front = self.front_of(trials)
            # Of the equally accurate, argmax takes the first: the cheapest.
            row = front.iloc[int(front["knee" if which == "knee" else "accuracy"].to_numpy().argmax())]
        else:
            found = trained[trained["id"].str.startswith(which)] if which else trained
            if len(found) != 1:
                rule = f"knee, best, or the start of the id of one trained candidate of {self.folder}"
                several = f" ({len(found)} ids start so)" if which and len(found) else ""
                raise refuse("--pick", which, rule + several)
            row = found.iloc[0]
        return Architecture.from_json(row["architecture"]), row


def refuse_changes(folder: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError if a folder was begun with `what`: values by key, of which those of `space` are not shown."""
    for key, value in now.items():
        if (there := before.get(key)) != value:
            which = f"{what}: {key} is {json.dumps(there)} there and {json.dumps(value)} now"
            which = "another space" if key == "space" else which
            raise InputError(f"{folder}: was begun with {which}; choose another folder with --run")

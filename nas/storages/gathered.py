"""A storage in which a proposal is written when it is complete, at once, and so is there as a whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.inputs import InputError

_PENDING = -1


class Gathered(BaseStorage):
    """Any storage, with a `gathering`, for its one writer.

    Optuna writes each answer to a choice by itself: for a space of 60 choices a synced line, or a transaction, each.
    Inside of a gathering, the trial that is begun there is kept in memory until it ends.
    """

    def __init__(self, inner: BaseStorage) -> None:
        self.inner = inner
        self._gathers = False
        self._pending: tuple[int, FrozenTrial] | None = None  # with the id of its study
        self._counts: dict[int, int] = {}  # trials by study

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """What is begun inside is written at the end; nothing of it is if an exception is raised."""
        self._gathers = True
        try:
            yield
            if self._pending is not None:
                study_id, trial = self._pending
                trial_id = self.inner.create_new_trial(study_id, template_trial=trial)
                self._counts[study_id] += 1
                written = self.inner.get_trial_number_from_id(trial_id)
                if written != trial.number:
                    raise InputError(f"trial {trial.number} became {written}: somebody else writes to this study")
        finally:
            self._gathers, self._pending = False, None

    def _is_pending(self, trial_id: int) -> bool:
        return trial_id == _PENDING and self._pending is not None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if not self._gathers:
            self._counts.pop(study_id, None)
            return self.inner.create_new_trial(study_id, template_trial)
        assert self._pending is None, "a gathering is of one trial"
        trial = copy.deepcopy(template_trial or create_trial(state=TrialState.RUNNING))
        if study_id not in self._counts:
            self._counts[study_id] = self.inner.get_n_trials(study_id)
        trial.number, trial._trial_id = self._counts[study_id], _PENDING
        trial.datetime_start = None if trial.state == TrialState.WAITING else datetime.now()
        self._pending = study_id, trial
        return _PENDING

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        if self._is_pending(trial_id):
            trial = self.get_pending()
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution
        else:
            self.inner.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if not self._is_pending(trial_id):
            return self.inner.set_trial_state_values(trial_id, state, values)
        trial = self.get_pending()
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state == TrialState.RUNNING:
            trial.datetime_start = datetime.now()
        elif state.is_finished():
            trial.datetime_complete = datetime.now()
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        if self._is_pending(trial_id):
            self.get_pending().intermediate_values[step] = intermediate_value
        else:
            self.inner.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._is_pending(trial_id):
            self.get_pending().user_attrs[key] = value
        else:
            self.inner.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._is_pending(trial_id):
            self.get_pending().system_attrs[key] = value
        else:
            self.inner.set_trial_system_attr(trial_id, key, value)

    def get_pending(self) -> FrozenTrial:
        assert self._pending is not None
        return self._pending[1]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._is_pending(trial_id):
            return copy.deepcopy(self.get_pending())
        return self.inner.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        pending = [self._pending[1]] if self._pending is not None and self._pending[0] == study_id else []
        if states is not None:
            pending = [trial for trial in pending if trial.state in states]
        if states == (TrialState.WAITING,) and study_id in self._counts:
            return pending  # Optuna looks for them before each proposal, among all trials
        found = self.inner.get_all_trials(study_id, deepcopy, states)
        return [*found, *(copy.deepcopy(pending) if deepcopy else pending)]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        if self._pending is not None and self._pending[0] == study_id and self._pending[1].number == trial_number:
            return _PENDING
        return self.inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    # As they are

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.inner.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.inner.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.inner.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.inner.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.inner.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.inner.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.inner.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.inner.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.inner.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.inner.get_all_studies()

    def remove_session(self) -> None:
        self.inner.remove_session()

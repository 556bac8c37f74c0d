"""Where the record is kept: proposals in one piece, one driver at a time, and databases that are really there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import optuna
import pytest
from fakes import Tabular
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import TrialState

from nas.config import StudyConfig
from nas.inputs import InputError
from nas.storages import Gathered, open_database, open_journal, sole_driver, without_password
from nas.storages.journal import _lock_type

pytestmark = pytest.mark.usefixtures("quiet_optuna")
SCRIPT = Path(__file__).parents[1] / "scripts" / "postgres"
DIRECTIONS = ["maximize", "minimize"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server: $NAS_POSTGRESQL, or one of its own, which ends with this fixture."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'mobile-nas[postgresql]'")
    if url := os.environ.get("NAS_POSTGRESQL"):
        yield url
        return
    command = [str(SCRIPT), "sh", "-c", "echo $NAS_POSTGRESQL; cat"]
    environment = {**os.environ, "NAS_NO_INSTALL": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        url = process.stdout.readline().strip()
        if not url:
            pytest.skip(f"no PostgreSQL: {process.stderr.read().strip()[-200:]}")
        yield url
        process.stdin.close()


# Proposals in one piece


def study_on(storage: Any) -> Any:
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(study_name="s", storage=storage, directions=DIRECTIONS, sampler=sampler)


def test_a_proposal_is_one_line_of_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    storage = Gathered(open_journal(journal, repair=True))
    study = study_on(storage)
    before = journal.read_bytes().count(b"\n")
    with storage.gathering():
        study.enqueue_trial({"a": 3}, {"note": "wanted"})
        trial = study.ask()
        assert trial.suggest_int("a", 1, 9) == 3 and 0 <= trial.suggest_float("b", 0, 1) <= 1
        trial.set_user_attr("candidate", {"id": "x"})
        trial.set_constraint("params", -0.5)
        assert [each.state for each in study.get_trials()] == [TrialState.RUNNING] and trial.number == 0
        assert journal.read_bytes().count(b"\n") == before
    assert journal.read_bytes().count(b"\n") == before + 1
    again = optuna.load_study(study_name="s", storage=open_journal(journal, repair=False)).trials[0]
    assert again.params.keys() == {"a", "b"} and again.params["a"] == 3 and again.state == TrialState.RUNNING
    assert again.user_attrs == {"note": "wanted", "candidate": {"id": "x"}} and again.constraints == {"params": -0.5}
    assert again.datetime_start is not None
    study.tell(0, [0.5, 3])
    assert study.trials[0].values == [0.5, 3]


def test_a_proposal_that_is_told_at_once_is_one_line_too(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    storage = Gathered(open_journal(journal, repair=True))
    study = study_on(storage)
    for number in range(3):
        before = journal.read_bytes().count(b"\n")
        with storage.gathering():
            trial = study.ask()
            trial.suggest_int("a", 1, 9)
            study.tell(trial.number, [0.0, float(number)])
        assert trial.number == number and journal.read_bytes().count(b"\n") == before + 1
    assert [trial.values for trial in study.trials] == [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]
    assert all(trial.datetime_complete for trial in study.trials)


def test_nothing_is_left_of_a_proposal_that_is_broken_off(tmp_path: Path) -> None:
    storage = Gathered(open_journal(tmp_path / "journal.log", repair=True))
    study = study_on(storage)

    def broken_off() -> None:
        with storage.gathering():
            study.ask().suggest_int("a", 1, 9)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert study.trials == []
    with storage.gathering():
        assert study.ask().number == 0


def test_what_others_enqueued_is_asked_for_first(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    study_on(open_journal(journal, repair=True)).enqueue_trial({"a": 7})
    storage = Gathered(open_journal(journal, repair=True))
    study = optuna.load_study(study_name="s", storage=storage)
    with storage.gathering():
        trial = study.ask()
        assert (trial.number, trial.suggest_int("a", 1, 9)) == (0, 7)
    with storage.gathering():
        assert study.ask().number == 1


# The journal


def test_the_lock_is_a_symbolic_link_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _lock_type(tmp_path / "journal.log") is JournalFileSymlinkLock and not list(tmp_path.iterdir())

    def refuses(*paths: Any) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuses)
    assert _lock_type(tmp_path / "journal.log") is JournalFileOpenLock
    storage = open_journal(tmp_path / "journal.log", repair=True)
    study_on(storage).ask()


# Databases


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("me:secret@host", "host"),
    ],
)
def test_a_password_is_not_without_password(url: str, seen: str) -> None:
    assert without_password(url) == seen


def test_the_line_of_a_database_that_cannot_be_opened_has_no_password() -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'mobile-nas[postgresql]'")
    with pytest.raises(
        InputError, match=r"storage is 'postgresql://me:\*\*\*@127\.0\.0\.1:1/db', but must be"
    ) as error:
        open_database("postgresql://me:secret@127.0.0.1:1/db", "study.yaml: storage")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_study_is_the_same_with_another_password_and_shows_none(tmp_path: Path) -> None:
    config = StudyConfig.load(fakes.write_study(tmp_path))
    before, after = (
        config.model_copy(update={"storage": f"postgresql://me:{word}@h/db"}).fixed() for word in ("old", "new")
    )
    assert before == after and before["storage"] == "postgresql://me:***@h/db"


def one_driver_at_a_time(url: str) -> None:
    with sole_driver(url, "toy"):
        with pytest.raises(InputError, match="study toy is being searched by another process"), sole_driver(url, "toy"):
            pass
        with sole_driver(url, "other"):
            pass
    with sole_driver(url, "toy"):
        pass


def test_one_driver_at_a_time_on_sqlite(tmp_path: Path) -> None:
    one_driver_at_a_time(f"sqlite:///{tmp_path}/x.db")


def test_one_driver_at_a_time_on_postgresql(server: str) -> None:
    one_driver_at_a_time(server)


def test_two_run_folders_do_not_search_one_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    file = fakes.write_study(tmp_path, trials=2, storage=url)
    with sole_driver(url, "toy"), pytest.raises(InputError, match="study toy is being searched by another process"):
        fakes.search(file, tmp_path / "two", Tabular(tmp_path / "calls"))
    fakes.search(file, tmp_path / "two", Tabular(tmp_path / "calls"))


def test_a_search_on_postgresql_is_stopped_and_goes_on(tmp_path: Path, server: str) -> None:
    file = fakes.write_study(tmp_path, name="on-postgresql", trials=5, storage=server, budget={"params": 1500})
    with pytest.raises(KeyboardInterrupt):
        fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=3))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    alone = fakes.write_study(tmp_path / "alone", trials=5, budget={"params": 1500})
    other = fakes.search(alone, tmp_path / "alone" / "run", Tabular(tmp_path / "alone_calls"))
    assert list(run.trials()["id"]) == list(other.trials()["id"])
    assert set(fakes.epochs(tmp_path / "calls").values()) == {1}

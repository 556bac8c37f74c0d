"""The folder of a study: what it refuses, what it mends, and the tables that are read off its record."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import optuna
import pandas as pd
import pytest
from fakes import Tabular
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas import pareto
from nas.architecture import Architecture, Stage
from nas.config import StudyConfig
from nas.costs import COSTS, costs
from nas.files import sweep, write_json, write_text, write_whole
from nas.inputs import InputError
from nas.run import Run
from nas.storages import mend_journal
from nas.tables import front_table, trials_table

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def config(folder: Path, **changes: Any) -> StudyConfig:
    return StudyConfig.load(fakes.write_study(folder, **changes))


# Beginning, and going on


def test_a_run_holds_its_study_and_space(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a" / "run", config(tmp_path, trials=5))
    assert run.config.trials == 5 and run.space(1, 10).size == 153
    assert sorted(file.name for file in run.folder.iterdir()) == ["space.yaml", "study.yaml"]
    again = Run.open(run.folder)
    assert again.config == run.config and again.space_file.read_text() == fakes.TOY


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "other"}, 'name is "toy" there and "other" now'),
        ({"budget": {"params": 1000}}, r'budget is {} there and {"params": 1000.0} now'),
        ({"objectives": ["accuracy", "macs"]}, 'objectives is ["accuracy", "params"] there and'),
        ({"sampler": {"name": "tpe"}}, "sampler is {"),
        ({"sampler": {"name": "random", "seed": 1}}, "sampler is {"),
        ({"proxy": {"rungs": [2]}}, "proxy.rungs is "),
        ({"proxy": {"rungs": [1], "recipe": {"lr": 0.2}}}, "proxy.recipe.lr is 0.1 there and 0.2 now"),
        ({"data": {"source": "digits", "seed": 1}}, "data.seed is 0 there and 1 now"),
        ({"storage": "sqlite:///x.db"}, 'storage is null there and "sqlite:////'),
        ({"space": fakes.SIX}, "was begun with another space"),
    ],
    ids=str,
)
def test_another_study_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    folder = tmp_path / "run"
    Run.create(folder, config(tmp_path))
    before = [file.read_bytes() for file in sorted(folder.iterdir())]
    with pytest.raises(InputError, match=rf"^{re.escape(str(folder))}: .*{re.escape(says)}.*another folder"):
        Run.create(folder, config(tmp_path / "other", **changes))
    assert [file.read_bytes() for file in sorted(folder.iterdir())] == before


def test_what_may_change_is_taken_over(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", config(tmp_path, data={"source": "digits", "root": "/images"}))
    run = Run.create(tmp_path / "run", config(tmp_path, trials=99, workers=3, retrain={"epochs": 7}))
    assert (run.config.trials, run.config.workers, run.config.retrain_recipe().epochs) == (99, 3, 7)
    assert run.config.data.root == "/images", "is kept where none is given"
    moved = config(tmp_path, data={"source": "digits", "root": "/elsewhere"})
    assert Run.create(tmp_path / "run", moved).config.data.root == "/elsewhere"


def test_a_folder_with_a_space_of_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "space.yaml").write_text(fakes.SIX)
    with pytest.raises(InputError, match=r"mine: is no run, but has a space\.yaml"):
        Run.create(tmp_path / "mine", config(tmp_path))
    assert (tmp_path / "mine" / "space.yaml").read_text() == fakes.SIX
    (tmp_path / "mine" / "space.yaml").write_text(fakes.TOY)  # as a stop between the two files leaves it
    assert Run.create(tmp_path / "mine", config(tmp_path)).config.name == "toy"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=f"^{folder}: cannot be written: "), Run(folder).lock():
            pass
        with pytest.raises(InputError, match=f"^{folder}: cannot be written: "):
            Run.create(folder, config(tmp_path))


def test_what_is_no_run_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run: it has no study\.yaml"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run", config(tmp_path))
    with pytest.raises(InputError, match=r"has no journal\.log yet: the search has not begun"):
        run.front()
    assert not (run.folder / "journal.log").exists(), "looking leaves nothing behind"
    (run.folder / "journal.log").touch()
    with pytest.raises(InputError, match="its storage has no study named toy"):
        run.trials()


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.lock():
        with pytest.raises(InputError, match=f"^{run.folder}: is being searched by another process"), run.lock():
            pass
        with pytest.raises(InputError, match="is being searched"), Run(run.folder).lock():
            pass
    with run.lock():
        pass


# What a killed writer leaves


def cut(content: bytes) -> bytes:
    return content[:-7]


def cut_newline(content: bytes) -> bytes:
    return content[:-1]


def zeros(content: bytes) -> bytes:
    """As some file systems leave it when the power goes: the length is new, the content is not there."""
    return content + bytes(100)


def glued(content: bytes) -> bytes:
    """Half a line that was appended to: as a search without repair would leave it."""
    return content[:-7] + content.splitlines(keepends=True)[-1]


@pytest.mark.parametrize("tear", [cut, cut_newline, zeros, glued], ids=lambda tear: tear.__name__)
def test_a_torn_last_line_is_cut_off_and_kept(
    tmp_path: Path, tear: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    file = fakes.write_study(tmp_path, trials=3)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    before = run.trials()
    journal = run.folder / "journal.log"
    whole = journal.read_bytes()
    torn = tear(whole)
    journal.write_bytes(torn)
    with caplog.at_level(logging.WARNING):
        run = fakes.search(file, run.folder, Tabular(tmp_path / "calls"), trials=4)
    assert caplog.messages == [f"{journal}: its last line was torn; it is now in journal.torn"]
    kept = torn[: -len((run.folder / "journal.torn").read_bytes())]
    assert whole.startswith(kept) and journal.read_bytes().startswith(kept)
    assert kept + (run.folder / "journal.torn").read_bytes() == torn, "nothing is thrown away"
    table = run.trials()
    assert (table["outcome"] == "trained").sum() == 4
    assert set(before["id"]) <= set(table["id"]) and set(fakes.epochs(tmp_path / "calls").values()) == {1}


def test_a_whole_journal_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "journal.log"
    mend_journal(journal)
    assert not journal.exists()
    for content in (b"", b'{"op_code": 1}\n', b'{"op_code": 1}\n{"op_code": 2}\n'):
        journal.write_bytes(content)
        mend_journal(journal)
        assert journal.read_bytes() == content
    journal.write_bytes(b'{"op_code')
    mend_journal(journal)
    assert journal.read_bytes() == b"" and len(caplog.messages) == 1


def test_damage_in_the_middle_is_said(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=2)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    journal = run.folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], b"{torn" + lines[5], *lines[6:]]))
    for look in (run.trials, lambda: fakes.search(file, run.folder, Tabular(tmp_path / "calls"))):
        with pytest.raises(InputError, match=r"journal\.log: is damaged in the middle .* restore it from a copy"):
            look()


@pytest.mark.parametrize("relative", [False, True])
def test_a_stale_lock_is_not_waited_for(tmp_path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna breaks one after 30 s; never, and at full speed, if it is a symbolic link to a relative path."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run") if relative else tmp_path / "run"
    file = fakes.write_study(tmp_path, trials=2)
    fakes.search(file, folder, Tabular(tmp_path / "calls"))
    for name in ("journal.log.lock", "journal.log.lock1234.rename"):
        (folder / name).symlink_to("run/journal.log")
    start = time.monotonic()
    fakes.search(file, folder, Tabular(tmp_path / "calls"), trials=3)
    assert time.monotonic() - start < 10 and not list(folder.glob("*.lock*.rename"))


# Tables


def trained(number: int, accuracy: float, width: int, outcome: str = "trained") -> FrozenTrial:
    """A candidate on record; with its width its costs rise."""
    stages = (Stage.of("conv", width, k=3), Stage.of("classifier", 10))
    architecture = Architecture(stages, 8, 1)
    known = costs(architecture)
    rung = {"accuracy": accuracy, "loss": 1.0, "epochs": 3, "seconds": 0.5, "failure": None, "curve": []}
    candidate = {"id": architecture.id, "costs": known, "architecture": architecture.to_dict()}
    attrs = {"candidate": candidate, "rungs": [rung], "outcome": outcome}
    return record(number, TrialState.COMPLETE, attrs, values=[accuracy, known["params"]])


def test_a_run_from_before_a_cost_was_known_shows_it() -> None:
    trial = trained(0, 0.5, 8)
    table = trials_table([trial])
    known = dict(trial.user_attrs["candidate"]["costs"])
    trial.user_attrs["candidate"]["costs"] = {"params": known["params"], "macs": known["macs"]}
    assert trials_table([trial]).equals(table)


def test_a_front_has_its_objectives_before_any_is_known() -> None:
    assert list(front_table(trials_table([]), ["accuracy", "latency_ms"])["latency_ms"]) == []


def record(number: int, state: TrialState, attrs: dict[str, Any], values: list[float] | None = None) -> FrozenTrial:
    trial = create_trial(
        state=state, values=values, user_attrs=attrs, params={"c": 8}, distributions={"c": IntDistribution(8, 64)}
    )
    trial.number = number
    return trial


OTHERS = [
    record(90, TrialState.WAITING, {}),
    record(91, TrialState.RUNNING, {}),
    record(92, TrialState.FAIL, {"outcome": "interrupted", "reason": "stopped"}),
    record(93, TrialState.COMPLETE, {"outcome": "impossible", "reason": "groups"}, [0.0, 0.0]),
]


@pytest.mark.parametrize("trials", [[], OTHERS, [trained(0, 0.5, 8), *OTHERS]], ids=["none", "others", "one"])
def test_tables_have_the_same_columns_and_types_whatever_is_in_them(trials: list[FrozenTrial]) -> None:
    table = trials_table(trials)
    whole = trials_table([trained(0, 0.5, 8), trained(1, 0.6, 16)])
    assert table.dtypes.to_dict() == whole.dtypes.to_dict() and len(table) == len(trials)
    assert list(table.columns[:4]) == ["number", "id", "outcome", "accuracy"]
    front = front_table(table, ["accuracy", "params"])
    assert front.dtypes.to_dict() == front_table(whole, ["accuracy", "params"]).dtypes.to_dict()
    assert all(front[name].dtype == "int64" for name in COSTS) and front["knee"].dtype == bool
    assert len(front) == front["knee"].sum() == (table["outcome"] == "trained").sum()
    outcomes = ["waiting", "running", "interrupted", "impossible"]
    assert list(table["outcome"])[-len(OTHERS) :] == outcomes * bool(trials)


def test_tables_survive_a_file(tmp_path: Path) -> None:
    table = trials_table([trained(0, 0.5, 8), *OTHERS])
    table.to_parquet(tmp_path / "trials.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), table)


@pytest.mark.parametrize(
    "points",
    [
        [(0.5, 8)],
        [(0.5, 8), (0.5, 16), (0.5, 24)],
        [(1.0, 8), (1.0, 16)],
        [(0.0, 8), (0.0, 16)],
        [(0.1 * i, 8 * i) for i in range(1, 10)],
        [(0.5, 8), (0.9, 16), (0.91, 64), (0.4, 32)],
    ],
    ids=str,
)
@pytest.mark.parametrize("objectives", [["accuracy", "params"], ["accuracy"], ["params", "accuracy", "macs"]], ids=str)
def test_a_front_is_not_dominated_and_has_one_knee(points: list[tuple[float, int]], objectives: list[str]) -> None:
    trials = [trained(number, *point) for number, point in enumerate(points)]
    table = trials_table([*trials, *OTHERS])
    front = front_table(table, objectives)
    assert front["knee"].sum() == 1 and set(front["id"]) <= set(table.loc[table["outcome"] == "trained", "id"])
    values = front[objectives].to_numpy(float)
    maximise = [name == "accuracy" for name in objectives]
    assert pareto.front(values, maximise).all()
    everything = table.loc[table["outcome"] == "trained", objectives].to_numpy(float)
    assert pareto.front(everything, maximise).sum() == len(front)
    by = next((name for name in objectives if name != "accuracy"), None)
    assert front[by].is_monotonic_increasing if by else front["accuracy"].nunique() == 1


def test_the_knee_is_that_of_log_scales() -> None:
    points = [(0.5, 8), (0.8, 16), (0.9, 24), (0.91, 32), (0.915, 64)]
    front = front_table(trials_table([trained(i, *x) for i, x in enumerate(points)]), ["accuracy", "params"])
    assert front.loc[front["knee"], "accuracy"].item() == 0.9


def made(folder: Path, points: list[tuple[float, int]]) -> Run:
    """A run with these candidates on record."""
    run = Run.create(folder / "run", config(folder))
    study = optuna.create_study(
        study_name="toy", storage=run.open_storage(repair=True), directions=["maximize", "minimize"]
    )
    study.add_trials([trained(number, *point) for number, point in enumerate(points)])
    return run


def test_pick(tmp_path: Path) -> None:
    run = made(tmp_path, [(0.5, 8), (0.9, 16), (0.91, 64), (0.4, 32)])
    front = run.front()
    assert list(front["accuracy"]) == [0.5, 0.9, 0.91]
    for which, accuracy in (("knee", 0.9), ("best", 0.91)):
        architecture, row = run.pick(which)
        assert (row["accuracy"], architecture.id) == (accuracy, row["id"])
    beaten = run.trials().query("accuracy == 0.4")["id"].item()
    for start in (beaten, beaten[:6]):
        assert run.pick(start)[0].id == beaten, "any trained candidate, not only those of the front"
    rule = "knee, best, or the start of the id of one trained candidate"
    for wrong in ("", "zzz", "KNEE", beaten + "0"):
        with pytest.raises(InputError, match=f"--pick is {wrong!r}, but must be {rule}"):
            run.pick(wrong)


def test_pick_refuses_the_start_of_several_ids(tmp_path: Path) -> None:
    run = made(tmp_path, [(0.01 * width, width) for width in range(1, 40)])
    first = run.trials()["id"].str[0].value_counts()
    start, count = first.index[0], first.iloc[0]
    assert count > 1
    with pytest.raises(InputError, match=rf"--pick is '{start}', but must be .* \({count} ids start so\)"):
        run.pick(start)


def test_pick_of_equally_accurate_is_the_cheapest(tmp_path: Path) -> None:
    run = made(tmp_path, [(0.5, 16), (0.5, 8), (0.5, 24)])
    assert run.pick("best")[0].stages[0].c == run.pick("knee")[0].stages[0].c == 8


def test_pick_needs_a_candidate(tmp_path: Path) -> None:
    run = made(tmp_path, [])
    for which in ("knee", "best", "abc"):
        with pytest.raises(InputError, match="has no trained candidate yet"):
            run.pick(which)


def test_a_front_is_unmoved_by_what_was_not_trained(tmp_path: Path) -> None:
    trials = [trained(0, 0.5, 16), trained(1, 0.9, 8, outcome="repeated"), trained(2, 0.9, 8, outcome="failed")]
    assert list(front_table(trials_table(trials), ["accuracy", "params"])["number"]) == [0]
    assert np.isnan(trials_table(trials)["accuracy"][1:]).all()


# Files


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    write_text(file, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_whole(file, fail)
    assert file.read_text() == "old" and list(file.parent.iterdir()) == [file]
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(file, {"loss": float("nan")})
    assert file.read_text() == "old"


def test_many_write_one_file(tmp_path: Path) -> None:
    """The threads all have their half before one is renamed."""
    barrier, file = threading.Barrier(8), tmp_path / "file"

    def write(text: str) -> None:
        def slowly(path: Path) -> None:
            path.write_text(text)
            barrier.wait(10)

        write_whole(file, slowly)

    threads = [threading.Thread(target=write, args=(str(number) * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() in {str(number) * 1000 for number in range(8)} and list(tmp_path.iterdir()) == [file]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".x.0123456789ab.tmp", tmp_path / ".y.0123456789ab.tmp"
    others = [tmp_path / "notes.tmp", tmp_path / ".thesis.docx.tmp"]
    for file in (old, new, *others):
        file.touch()
    for file in (old, *others):
        os.utime(file, (time.time() - 7200,) * 2)
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, *others])

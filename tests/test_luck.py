"""Bad luck that is no candidate's: clocks, disks, versions, what others wrote. Each costs nothing, and says so."""

from __future__ import annotations

import csv
import importlib.util
import logging
import subprocess
import time
from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest
from fakes import Tabular

from nas.inputs import InputError, damaged
from nas.report.compare import compare_runs
from nas.run import Run
from nas.study.confirming import Confirming
from nas.tables import save_csv, trials_table

pytestmark = pytest.mark.usefixtures("quiet_optuna")
FUZZ = Path(__file__).parents[1] / "scripts" / "fuzz.py"


@pytest.mark.parametrize("jump", [-10_000_000.0, 10_000_000.0], ids=["back", "forth"])
def test_a_clock_that_jumps_between_two_sittings(tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fakes.write_study(tmp_path, trials=3)
    fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + jump)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"), trials=6)
    assert (run.trials()["outcome"] == "trained").sum() == 6
    assert set(fakes.epochs(tmp_path / "calls").values()) == {1}
    assert compare_runs([run])["runs"]


def test_other_versions_are_said_once(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fakes.write_study(tmp_path, trials=2)
    fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    monkeypatch.setattr("nas.study.study.versions", lambda: {"python": "9.9", "torch": "9.0"})
    with caplog.at_level(logging.WARNING):
        for trials in (3, 4):
            fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"), trials=trials)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(f"{tmp_path}/run: was searched with python ")
    assert ", now 9.9; torch " in caplog.messages[0] and set(fakes.epochs(tmp_path / "calls").values()) == {1}


@pytest.fixture
def read_only(tmp_path: Path) -> Any:
    """A function that makes a folder read-only, by a mount where this user may."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        commands = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]]
        if any(subprocess.run(command, capture_output=True, check=False).returncode for command in commands):
            folder.chmod(0o555)
            try:
                (folder / "probe").touch()
            except OSError:
                return
            pytest.skip("this user may write everywhere, and may not mount")
        mounted.append(folder)

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
    for folder in tmp_path.iterdir():
        folder.chmod(0o755) if folder.is_dir() else None


def test_a_read_only_run_can_be_looked_at_and_not_searched(tmp_path: Path, read_only: Any) -> None:
    file = fakes.write_study(tmp_path, trials=2)
    before = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls")).trials()
    read_only(tmp_path / "run")
    pd.testing.assert_frame_equal(Run.open(tmp_path / "run").trials(), before)
    with pytest.raises(InputError, match=f"^{tmp_path}/run: cannot be written: "):
        fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"), trials=3)


def test_no_text_is_a_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    formulas = ["=1+1", "+cmd", "-2", "@SUM(A1)", "\t=x", " =x", "\r=x", "\n@x"]
    texts = [*formulas, "bottleneck24", "a=1"]
    table = pd.DataFrame({"id": texts, "params": range(10), "loss": [-0.5] * 10, "knee": [True] * 10})
    save_csv(table, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [row["id"] for row in rows]
    assert found == [f"'{text}".replace("\r", " ") for text in formulas] + ["bottleneck24", "a=1"]
    assert [row["loss"] for row in rows] == ["-0.5"] * 10


@pytest.mark.parametrize(
    ("key", "value"),
    [("rungs", 3), ("rungs", [{}]), ("rungs", []), ("outcome", ["trained"]), ("candidate", "x"), ("confirms", [0, 1])],
    ids=str,
)
def test_a_record_of_another_form_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    run = fakes.search(fakes.write_study(tmp_path, trials=2), tmp_path / "run", Tabular(tmp_path / "calls"))
    trial = run.all_trials()[1]
    storage = run.open_storage()
    storage._replay_result._trials[trial._trial_id].user_attrs[key] = value  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"(trial 1 on|the) record is damaged") as error:
        trials_table(storage.get_all_trials(0))
    assert "\n" not in str(error.value)


def test_a_confirmation_of_what_was_not_trained_is_refused() -> None:
    confirming = Confirming(1)
    confirming.trained(1, [10.0], 0.5)
    confirming.begin(1, 1)
    with pytest.raises(KeyError, match="candidate 2 was not trained"):
        confirming.begin(2, 1)


def test_what_is_damaged_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^x is damaged \(KeyError: 'a b'\); delete it$"), damaged("x", "delete it"):
        {}["a b"]


@pytest.mark.parametrize("reader", ["yaml", "journal", "checkpoint", "weights"])
def test_spoilt_files_are_read_or_refused(reader: str, tmp_path: Path) -> None:
    """A short version of scripts/fuzz."""
    spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
    assert spec and spec.loader
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    facts = fuzz.fuzz(reader, 100, 1, tmp_path / "failures")
    assert facts["refused"] > 20 and (facts["failures"], facts["several_lines"]) == (0, 0)

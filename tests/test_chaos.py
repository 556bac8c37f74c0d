"""A search that is killed at random ends like one that is not: a short version of scripts/chaos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "scripts" / "chaos.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds worker processes in /proc")
def test_killed_at_random_a_search_loses_and_repeats_nothing() -> None:
    command = [sys.executable, str(CHAOS), "--kills", "4", "--trials", "4", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["lost"], facts["repeated"], facts["same_front"], facts["left_over"]) == (0, 0, True, 0)
    assert facts["candidates"] == 4 and facts["kills"] >= 1

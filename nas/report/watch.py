"""The report of a run, once, or again and again while it is searched."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas.report.facts import report_facts
from nas.report.page import write_page
from nas.run import Run


def write_report(
    run: Run, file: Path, references: Sequence[str] | None = None, every: float | None = None
) -> Iterator[dict[str, Any]]:
    """Writes the page and gives the search's status; with `every`, again after so many seconds where the record has
    changed, until the search is complete.

    While it is watched, the page reads itself again as often; the last one does not. Raises InputError as
    `report_facts` does.
    """
    seen = -1
    while True:
        facts = report_facts(run, references)
        status = facts["status"]
        going = every is not None and status["done"] < status["wanted"]
        proposals = sum(status["outcomes"].values()) + status["done"]
        if proposals != seen or not going:
            write_page(file, "report", f"{run.config.name}: report", facts, int(every) if going and every else None)
            yield status
        seen = proposals
        if not going or every is None:
            return
        time.sleep(every)

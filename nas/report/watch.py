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
    run: Run, file: Path, references: Sequence[str] | None = None, every: int | None = None
) -> Iterator[dict[str, Any]]:
    """Writes the page and gives the search's status; with `every`, again after so many seconds where the record has
    changed, until the search has ended.

    While it is watched, the page reads itself again as often; the last one does not. Raises InputError as
    `report_facts` does.
    """
    seen = None
    while True:
        trials, _, ended = run.record()
        now = ended, [(x.state, len(x.user_attrs), len(x.user_attrs.get("rungs", []))) for x in trials]
        if now != seen:  # asked first: the facts of a long search take seconds
            seen, facts = now, report_facts(run, references)
            status = facts["status"]
            again = None if status["ended"] else every
            write_page(file, "report", f"{run.config.name}: report", facts, again)
            yield status
        if again is None:
            return
        time.sleep(again)

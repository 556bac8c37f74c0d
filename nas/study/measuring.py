"""The members of a front, measured as whole networks where they will run."""

from __future__ import annotations

from nas.architecture import Architecture
from nas.files import write_json
from nas.latency import Bench, open_source
from nas.latency.table import Progress
from nas.run import Run


def measure_front(run: Run, on_progress: Progress) -> None:
    """Writes measured.json: the whole networks of the front, those that were measured before as they are.

    On another device nothing can be measured from here: then it writes nothing.
    """
    assert run.config.latency is not None
    front, known = run.front(), run.measured()
    new = [Architecture.from_json(text) for text in front["architecture"]]
    new = [each for each in new if each.id not in known]
    if not new:
        return
    source = open_source(run.config.latency.runtime, run.config.latency.threads, on_progress)
    if not isinstance(source, Bench):
        return
    on_progress("members of the front", 0, len(new))
    timings = source.again(new)
    found = {member.id: source.table.ms(timing) for member, timing in zip(new, timings, strict=True)}
    write_json(run.measured_file, known | found)

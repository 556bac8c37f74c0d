"""The commands for where a network will run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.latency import Bench


def export(options: argparse.Namespace) -> None:
    from nas.deploy import export

    done = export(
        options.run, options.pick, options.format, out=options.out, data_root=options.data_root, int8=options.int8
    )
    facts = done.facts
    if options.json:
        print(json.dumps({**facts, "file": str(done.file)}, indent=2))
        return
    print(
        f"{facts['id']}: {done.file}, {facts['bytes']:,} bytes; on {facts['images']:,} validation images it predicts "
        f"what PyTorch does, logits within {facts['relative']:.1g} of the largest"
    )
    if small := facts.get("int8"):
        print(
            f"int8: {small['file']}, {small['bytes']:,} bytes; accuracy {small['accuracy']:.4f} -> "
            f"{small['accuracy_int8']:.4f} on {small['images']:,} validation images; {small['latency_ms']:.3f} -> "
            f"{small['latency_int8_ms']:.3f} ms here on one thread"
        )


def latency(options: argparse.Namespace) -> None:
    from nas.latency import validate
    from nas.report.latency import validation_text
    from nas.space import Space

    facts = validate(Space.load(options.space), _bench(options), options.n, options.all)
    print(json.dumps(facts, indent=2) if options.json else validation_text(facts))


def _bench(options: argparse.Namespace) -> Bench:
    """What is measured on, with its progress on stderr where that is a terminal."""
    from nas.inputs import choices, refuse
    from nas.latency import RUNTIMES, Bench

    if options.runtime not in RUNTIMES:
        raise refuse("--runtime", options.runtime, choices(RUNTIMES))

    def show(what: str, done: int, total: int) -> None:
        print(f"\r{what}: {done:,} of {total:,} \033[K", end="", file=sys.stderr, flush=True)

    quiet = {} if sys.stderr.isatty() else {"on_progress": lambda what, done, total: None}
    return Bench.kept(options.runtime, RUNTIMES[options.runtime], options.threads, **{"on_progress": show, **quiet})

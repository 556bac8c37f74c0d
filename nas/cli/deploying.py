"""The commands for where a network will run."""

from __future__ import annotations

import argparse
import json


def export(options: argparse.Namespace) -> None:
    from nas.deploy import export

    done = export(options.run, options.pick, options.format, out=options.out, data_root=options.data_root)
    facts = done.facts
    if options.json:
        print(json.dumps({**facts, "file": str(done.file)}, indent=2))
        return
    print(
        f"{facts['id']}: {done.file}, {facts['bytes']:,} bytes; on {facts['images']:,} validation images it predicts "
        f"what PyTorch does, logits within {facts['relative']:.1g} of the largest"
    )

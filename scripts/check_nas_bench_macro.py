#!/usr/bin/env python
"""Compares search_spaces/nas_bench_macro.yaml with the whole table of NAS-Bench-Macro (Su et al., CVPR 2021).

    scripts/check_nas_bench_macro.py nas-bench-macro_cifar10.json

PATH is the JSON file of github.com/xiusu/NAS-Bench-Macro (or that, packed with xz): 6,561 codes of eight digits, each
with `params` and `flops`. Prints every code that costs something else here, and how many networks are distinct (3,969:
where in a stage a 0 stands behind the first layer makes no difference). Exits with 1 if a number differs or codes lack.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.costs import cost
from nas.space import Space

SPACE = Path(__file__).parents[1] / "search_spaces" / "nas_bench_macro.yaml"


def read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    table: dict[str, Any] = json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)
    return table


def network(space: Space, code: str) -> Architecture:
    return space.decode({f"stages[{place}]": int(digit) for place, digit in enumerate(code)})


def main() -> int:
    parser = argparse.ArgumentParser(description="Every network of NAS-Bench-Macro: params and MACs, ours and theirs.")
    parser.add_argument("path", type=Path, metavar="PATH", help="the benchmark's JSON file, may be packed with xz")
    try:
        table = read(parser.parse_args().path)
    except (OSError, ValueError, lzma.LZMAError) as error:
        parser.error(f"cannot read the table: {error}")
    space, ids, mismatches = Space.load(SPACE), set(), 0
    for code, entry in sorted(table.items()):
        architecture = network(space, code)
        ids.add(architecture.id)
        ours = cost(architecture, "params"), cost(architecture, "macs")
        theirs = entry["params"], entry["flops"]
        if ours != theirs:
            mismatches += 1
            print(f"{code}: (params, macs) are {ours} here, {theirs} in the table")
    print(f"{len(table)} codes, {len(ids)} distinct networks, {mismatches} mismatches")
    return 1 if mismatches or len(table) != space.size else 0


if __name__ == "__main__":
    sys.exit(main())

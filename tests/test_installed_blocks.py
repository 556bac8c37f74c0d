"""Blocks of other packages, by their entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MINE = """
from nas.blocks import Block
from nas.blocks.block import conv
from torch import nn

class Mine(Block):
    def __init__(self, in_channels, out_channels, stride, resolution, *, k: int = 3) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        self.layers = nn.Sequential(*conv(in_channels, out_channels, k, stride))

    def forward(self, x):
        return self.layers(x)
"""
NAMES = "[nas.blocks]\nmine = mine:Mine\nconv = mine:Mine\nabsent = mine:Absent\nmodule = mine:nn\n"
PROGRAM = """
import logging
logging.basicConfig(format="%(message)s", level="WARNING")
from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS
from nas.blocks.conv import Conv
from nas.costs import cost
assert BLOCKS["conv"] is Conv and not {"absent", "module"} & BLOCKS.keys()
print(cost(Architecture((Stage.of("mine", 8, s=2, k=5), Stage.of("classifier", 10)), 32), "macs"))
"""


def test_the_blocks_of_an_installed_package_are_known_and_what_is_wrong_with_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(NAMES)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout) == (0, f"{3 * 8 * 25 * 16 * 16 + 8 * 10}\n"), done.stderr
    assert sorted(done.stderr.splitlines()) == [
        "block absent (mine:Absent) is left out: it cannot be imported: AttributeError: module 'mine' has no attribute"
        " 'Absent'",
        "block conv (mine:Mine) is left out: it has the name of another block",
        "block module (mine:nn) is left out: it is no subclass of nas.blocks.Block",
    ]

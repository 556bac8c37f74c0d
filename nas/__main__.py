"""`python -m nas`, and under torchrun `-m nas`: the command line."""

import sys

from nas.cli import program

sys.exit(program())

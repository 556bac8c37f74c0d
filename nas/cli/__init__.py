"""The command line: parses arguments and calls one function for each command."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import sys

from nas.cli.arguments import complain
from nas.cli.arguments import make_parser as _parser
from nas.cli.commands import COMMANDS

_GO_ON = {"search", "retrain", "trust"}


def program() -> int:
    """`nas` as it is installed: `main`, in a process of its own.

    Imports make objects by the hundred thousand, and they stay: to look for garbage among them every 700 objects, and
    through all of them at the end, took a second.
    """
    gc.set_threshold(100_000)
    try:
        return main()
    finally:
        gc.freeze()


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(words)
    from nas.inputs import InputError  # here, because it takes as long as all of `nas --help`

    logging.basicConfig(format="nas: %(message)s", level=logging.WARNING)
    logging.getLogger("nas").setLevel(logging.INFO)
    try:
        COMMANDS[options.COMMAND](options)
        sys.stdout.flush()
    except InputError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        goes_on = f"; nothing is lost, this goes on with it: {shlex.join(['nas', *words])}"
        complain("stopped" + (goes_on if options.COMMAND in _GO_ON else ""))
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"{error.filename or 'a file'}: cannot be read or written: {error.strerror or error}")
        return 2
    return 0

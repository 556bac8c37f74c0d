"""Ctrl-C works in the processes that tests start, also where the suite runs in the background with it ignored."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)

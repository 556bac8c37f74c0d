"""What holds for all tests."""

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

# Ctrl-C works in the processes that tests start, also where the suite runs in the background with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is kept of layers on this machine neither helps nor hides anything, and nothing is left in the user's home.
os.environ.pop("NAS_CACHE", None)
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="nas-cache-")


@pytest.fixture(scope="module")
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing below an error."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)

"""Where the record of a study is kept: a journal in the run's folder, or a database, opened so that it stays whole."""

from nas.storages.databases import absolute, open_database, sole_driver, without_password
from nas.storages.gathered import Gathered
from nas.storages.journal import mend_journal, open_journal
from nas.storages.lock import locked

__all__ = [
    "Gathered",
    "absolute",
    "locked",
    "mend_journal",
    "open_database",
    "open_journal",
    "sole_driver",
    "without_password",
]

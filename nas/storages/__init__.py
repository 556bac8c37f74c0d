"""Where the record of a study is kept: a journal in the run's folder, or a database, opened so that it stays whole."""

from nas.storages.databases import open_database, shown, sole_driver
from nas.storages.gathered import Gathered
from nas.storages.journal import mend_journal, open_journal

__all__ = ["Gathered", "mend_journal", "open_database", "open_journal", "shown", "sole_driver"]

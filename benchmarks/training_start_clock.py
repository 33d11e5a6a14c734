"""Remembers when it was imported: the first import of the process that forks the ranks."""

import time

IMPORTED_AT = time.time()

"""Makes a bank to play with (`python -m examples.bank`)."""

from __future__ import annotations

import sys

from examples.bank.books import create, database_path

if database_path().exists():
    sys.exit(f"{database_path()} is there already")
create(database_path(), 500)
print(f"made {database_path()}")

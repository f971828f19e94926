"""A PostgreSQL server for tests: in a folder of its own, as a user that is not root, reachable by a Unix socket only.

Where its programs are not installed, tests that need it fail and say how to install them (`make test` does so itself on
Debian, as root): a pool that outgrows SQLite depends on what they check, so they are not passed over. Who wants the
others only leaves them out by name: `pytest -k 'not postgres'`.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest

NO_SERVER = "no PostgreSQL on this machine: apt-get install postgresql, or leave its tests out: -k 'not postgres'"
_FAST = ("-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=40", "-c", "shared_buffers=16MB")
_numbers = count(1)


def books() -> str:
    """The URL of empty books on a server that runs until this process ends."""
    folder, schema = server(), f"books{next(_numbers)}"
    with psycopg.connect(f"host={folder} user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    return f"postgresql://postgres@/postgres?host={folder}&options=-csearch_path%3D{schema}"


@cache
def server() -> Path:
    """The folder of its socket: for PGHOST. Its superuser is `postgres`, and nobody is asked for a password."""
    programs = _programs()
    if programs is None:
        pytest.fail(NO_SERVER)
    folder = Path(tempfile.mkdtemp(prefix="fallow-pg-"))  # in /tmp: a socket's path is short
    who = _user()
    if who is not None:
        shutil.chown(folder, who)

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=who, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    run(programs / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-D", folder / "data")
    control = (programs / "pg_ctl", "-D", folder / "data", "-w")
    run(*control, "-l", folder / "log", "-o", " ".join((*_FAST, "-k", str(folder))), "start")

    def stop() -> None:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)

    atexit.register(stop)
    return folder


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=None)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"

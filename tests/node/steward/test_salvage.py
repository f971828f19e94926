"""A log of the form before is replaced by what it proves, all at once, whenever the process dies."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.clock import SystemClock
from fallow.adapters.event_log import SqliteEventLog
from fallow.node.steward.records import Records
from fallow.node.steward.role import SNAPSHOT, STREAM
from fallow.node.steward.salvage import CODE, FORMER_LEASES, Salvage
from fallow.rules.steward.machine import outstanding
from fallow.rules.steward.snapshot import read_snapshot
from fallow.rules.steward.state import State
from fallow.units import to_text

FIXTURES = Path(__file__).parents[2] / "fixtures"
FACTS: dict[str, Any] = json.loads((FIXTURES / "home_before.json").read_text("utf-8"))


class DyingLog(SqliteEventLog):
    """Dies instead of its write number `at`."""

    at = 1 << 30

    def _count(self) -> None:
        self.at -= 1
        if self.at < 0:
            raise KeyboardInterrupt

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        self._count()
        super().put_all(cells)

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str] = ()) -> None:
        self._count()
        super().cut(stream, upto, cells, gone)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with tarfile.open(FIXTURES / "home_before.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python 3.11.2 has none
        archive.extractall(tmp_path)
    log, blobs = DyingLog(tmp_path / "pool/log.db"), DiskBlobs(tmp_path / "blobs", 1 << 30)
    bank = bytes.fromhex(FACTS["books"]["bank"])
    yield SimpleNamespace(log=log, blobs=blobs, clock=SystemClock(), bank_account=bank)
    blobs.close()
    log.close()


def salvage(home: Any) -> State:
    return read_snapshot(Salvage(home, Records(home)).run(STREAM, SNAPSHOT)).state


def cells(log: SqliteEventLog) -> dict[str, bytes | None]:
    return {key: log.get(key) for key in log.keys("")}


def test_open_leases_are_to_be_closed_and_jobs_under_way_have_ended(home: Any) -> None:
    state = salvage(home)
    assert state.jobs == {}
    owed = [row["paid_ucr"] for job in FACTS["jobs"] if job["phase"] == "running" for row in job["leases"]]
    assert sorted(left.owed_ucr for left in state.leftovers.values()) == sorted(owed)
    assert len(outstanding(state)) == len(owed) == FACTS["books"]["open_escrows"]
    assert all(left.peer.direct for left in state.leftovers.values())
    records = Records(home)
    records.load()
    codes = {to_text("job", job): view.failure_code for job, view in records.retired.items()}
    assert codes == {job["id"]: CODE if job["phase"] == "running" else job["failure_code"] for job in FACTS["jobs"]}
    assert home.log.read(STREAM) == []
    assert home.log.keys(FORMER_LEASES) == []


def test_dying_at_any_write_and_starting_again_gives_the_same(home: Any) -> None:
    for at in range(8):
        home.log.at = at
        try:
            salvage(home)
        except KeyboardInterrupt:
            continue
        break
    else:
        raise AssertionError("it writes more often than that")
    assert at > 1
    assert len(home.log.keys("ended/")) == len(FACTS["jobs"])
    notes = [key for key in home.log.keys("note/") if key.startswith(f"note/{FACTS['under_way'][0][2:]}/")]
    assert len([key for key in notes if CODE.encode() in (home.log.get(key) or b"")]) == 1


def test_in_a_new_home_nothing_is_found(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    home: Any = SimpleNamespace(log=log, blobs=None, clock=SystemClock(), bank_account=bytes(20))
    assert salvage(home) == State()
    assert list(cells(log)) == [SNAPSHOT]
    log.close()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fallow.errors import FallowError
from fallow.kinds.rounds import RoundManifest
from fallow.numerics.aggregate import SharedState
from fallow.numerics.fingerprint import state_hash
from fallow.workloads.shared import Outer, Replica, read_checkpoint, write_checkpoint


def state() -> SharedState:
    made = SharedState.start({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    made.momentum["w"] += 0.5
    return made


def test_a_checkpoint_is_the_whole_state(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", state())
    found = read_checkpoint(tmp_path / "one", {"w": (2, 3)})
    assert state_hash(found) == state_hash(state())
    found.theta["w"] += 1  # its own memory, not the file's
    assert state_hash(read_checkpoint(tmp_path / "one", {"w": (2, 3)})) == state_hash(state())


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    bad = state()
    bad.theta["w"][0, 0] = np.nan
    write_checkpoint(tmp_path / "nan", bad)
    write_checkpoint(tmp_path / "good", state())
    for name, shape in (("nan", (2, 3)), ("good", (3, 2)), ("good", (2, 4))):
        with pytest.raises(FallowError) as caught:
            read_checkpoint(tmp_path / name, {"w": shape})
        assert caught.value.code == "E1705"


def test_a_replica_leads_only_forward_from_its_own_origin() -> None:
    first, second = RoundManifest(0, (bytes(32),)), RoundManifest(1, (bytes(32),))
    outer = Outer(0.7, 0.5)
    replica = Replica(state(), b"start", outer, (first,))
    assert replica.leads_to(b"start", outer, (first,))
    assert replica.leads_to(b"start", outer, (first, second))
    assert not replica.leads_to(b"start", outer, ())
    assert not replica.leads_to(b"start", outer, (second, first))
    assert not replica.leads_to(b"start", Outer(0.7, 0.9), (first,))
    assert not replica.leads_to(b"checkpoint", outer, (first,))
    assert not Replica(state(), b"", outer).leads_to(b"", outer, ())

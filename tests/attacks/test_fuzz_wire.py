"""A short run of what `python -m tests.attacks.fuzz_wire` does at length."""

from __future__ import annotations

from tests.attacks.fuzz_wire import Door, corpus, doors, run


def test_spoilt_bytes_are_refused_by_a_code_at_every_door() -> None:
    report = run(6_000, seed=7)
    assert report.unexpected == []
    assert {name.split()[0] for name in report.refused} == set(doors())


def test_honest_bytes_are_taken() -> None:
    """Else the doors are shut, and nothing was tried."""
    taken = {name: sum(_opens(door, data) for data in corpus(1)) for name, door in doors().items()}
    assert min(taken[name] for name in ("message", "document", "frames", "worker", "provider", "tree", "json")) > 0, (
        taken
    )


def _opens(door: Door, data: bytes) -> bool:
    try:
        door.act(data)
    except door.may:
        return False
    return True

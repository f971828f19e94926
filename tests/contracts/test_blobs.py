"""The Blobs port: what is put comes back, lies do not come in, pins hold, the quota holds."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.errors import FallowError, PeerFault, RejectedError, UnavailableError, UsageError
from fallow.units import MIB, BlobId
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of


class Place:
    """A store, and what a test may do to it from outside."""

    def __init__(self, quota_bytes: int) -> None:
        self._quota_bytes = quota_bytes
        self._root = Path(tempfile.mkdtemp(prefix="fallow-test-blobs-"))
        self.blobs = DiskBlobs(self._root, quota_bytes)

    def restart(self) -> None:
        self.blobs.close()
        self.blobs = DiskBlobs(self._root, self._quota_bytes)

    def damage(self, blob: BlobId, offset: int) -> None:
        name = blob.hex()
        file = self._root / "blobs" / name[:2] / name[2:]
        data = bytearray(file.read_bytes())
        data[offset] ^= 1
        file.chmod(0o600)
        file.write_bytes(data)

    def clean(self) -> None:
        self.blobs.close()
        shutil.rmtree(self._root)


def stuff(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that look random and are the same every time."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size_bytes)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place(16 * MIB)
    yield made
    made.clean()


EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.mark.parametrize("size_bytes", EDGES)
def test_what_is_put_comes_back(place: Place, size_bytes: int) -> None:
    data = stuff(size_bytes)
    blob = place.blobs.put(data)
    assert blob == blob_id_of(data)
    assert place.blobs.has(blob)
    assert place.blobs.size(blob) == size_bytes
    assert place.blobs.chunks(blob) == chunk_hashes_of(data)
    assert place.blobs.read(blob, 0, size_bytes + 1) == data
    assert place.blobs.path(blob).read_bytes() == data
    assert place.blobs.path(blob).stat().st_mode & 0o777 == 0o444
    assert place.blobs.put(data) == blob
    assert place.blobs.used_bytes == size_bytes


@pytest.mark.parametrize("size_bytes", EDGES)
def test_a_file_is_copied_in(place: Place, size_bytes: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(stuff(size_bytes))
    blob = place.blobs.put_file(file)
    assert blob == blob_id_of(stuff(size_bytes))
    file.write_bytes(b"something else")
    assert place.blobs.read(blob, 0, size_bytes) == stuff(size_bytes)
    file.write_bytes(stuff(size_bytes))
    assert place.blobs.put_file(file) == blob


@pytest.mark.parametrize("size_bytes", EDGES)
def test_a_file_is_taken_in(place: Place, size_bytes: int, tmp_path: Path) -> None:
    data = stuff(size_bytes)
    for _ in range(2):  # the second time it is here already
        (tmp_path / "file").write_bytes(data)
        assert place.blobs.take_file(tmp_path / "file") == blob_id_of(data)
        assert not (tmp_path / "file").exists()
    place.restart()
    blob = blob_id_of(data)
    assert place.blobs.read(blob, 0, size_bytes) == place.blobs.path(blob).read_bytes() == data
    assert place.blobs.chunks(blob) == chunk_hashes_of(data)
    assert place.blobs.used_bytes == size_bytes


def test_a_file_that_is_taken_in_heals_a_damaged_blob(place: Place, tmp_path: Path) -> None:
    data = stuff(2 * MIB)
    blob = place.blobs.put(data)
    place.damage(blob, MIB + 5)
    (tmp_path / "file").write_bytes(data)
    assert place.blobs.take_file(tmp_path / "file") == blob
    assert place.blobs.read(blob, 0, len(data)) == data


def test_a_file_is_not_taken_in_beyond_the_quota(place: Place, tmp_path: Path) -> None:
    place.blobs.pin(place.blobs.put(stuff(10 * MIB)), "a")
    for size in (7 * MIB, 17 * MIB):
        (tmp_path / "file").write_bytes(stuff(size))
        with pytest.raises(UnavailableError) as caught:
            place.blobs.take_file(tmp_path / "file")
        assert caught.value.code == "E1603"
    assert place.blobs.used_bytes == 10 * MIB


def test_only_a_plain_file_is_taken_in(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("link", "missing", "."):
        with pytest.raises(UsageError) as caught:
            place.blobs.take_file(tmp_path / name)
        assert caught.value.code == "E2003"
    assert (tmp_path / "file").read_bytes() == b"secret"


def test_only_a_plain_file_is_copied_in(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("link", "missing", "."):
        with pytest.raises(UsageError) as caught:
            place.blobs.put_file(tmp_path / name)
        assert caught.value.code == "E2003"
    assert place.blobs.used_bytes == 0


@given(offset=st.integers(-5, 2 * CHUNK_BYTES + 50), length=st.integers(0, 2 * CHUNK_BYTES + 50))
@settings(max_examples=20)
def test_any_range_reads_as_a_slice(ranges: tuple[Place, BlobId, bytes], offset: int, length: int) -> None:
    place, blob, data = ranges
    assert place.blobs.read(blob, offset, length) == data[max(0, offset) : max(0, offset + length)]


@pytest.fixture(scope="module")
def ranges() -> Iterator[tuple[Place, BlobId, bytes]]:
    place = Place(16 * MIB)
    data = stuff(2 * CHUNK_BYTES + 33)
    yield place, place.blobs.put(data), data
    place.clean()


def test_what_is_not_here_says_so(place: Place) -> None:
    unknown = blob_id_of(b"never put")
    assert not place.blobs.has(unknown)
    for attempt in (
        lambda: place.blobs.size(unknown),
        lambda: place.blobs.chunks(unknown),
        lambda: place.blobs.read(unknown, 0, 1),
        lambda: place.blobs.path(unknown),
        lambda: place.blobs.pin(unknown, "job"),
    ):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert caught.value.code == "E1602"


def test_the_least_recently_used_goes_first(place: Place) -> None:
    blobs = [place.blobs.put(stuff(4 * MIB, seed)) for seed in range(4)]
    place.blobs.read(blobs[0], 0, 1)
    fifth = place.blobs.put(stuff(4 * MIB, 5))
    assert [place.blobs.has(blob) for blob in blobs] == [True, False, True, True]
    assert place.blobs.has(fifth)
    assert place.blobs.used_bytes <= place.blobs.quota_bytes


def test_what_is_pinned_stays_and_survives_a_restart(place: Place) -> None:
    kept = [place.blobs.put(stuff(4 * MIB, seed)) for seed in range(4)]
    for blob in kept:
        place.blobs.pin(blob, "a")
        place.blobs.pin(blob, "a")
    place.blobs.pin(kept[0], "b")
    place.restart()
    with pytest.raises(UnavailableError) as caught:
        place.blobs.put(b"one byte too many")
    assert caught.value.code == "E1603"
    place.blobs.unpin_all("a")
    big = place.blobs.put(stuff(12 * MIB, 9))
    assert [place.blobs.has(blob) for blob in kept] == [True, False, False, False]
    assert place.blobs.read(big, 0, 12 * MIB) == stuff(12 * MIB, 9)


def test_what_its_last_owner_lets_go_may_be_dropped(place: Place) -> None:
    both, one = (place.blobs.put(stuff(8 * MIB, seed)) for seed in range(2))
    for blob, owner in ((both, "a"), (both, "b"), (one, "a")):
        place.blobs.pin(blob, owner)
    place.blobs.unpin(both, "a")
    place.blobs.unpin(one, "b")
    place.blobs.unpin(blob_id_of(b"not here"), "a")
    place.restart()
    with pytest.raises(UnavailableError):
        place.blobs.put(b"one byte too many")
    place.blobs.unpin(one, "a")
    place.blobs.put(b"one byte too many")
    assert [place.blobs.has(blob) for blob in (both, one)] == [True, False]


def test_blobs_change_hands_together_and_are_never_without(place: Place) -> None:
    first, second = (place.blobs.put(stuff(8 * MIB, seed)) for seed in range(2))
    place.blobs.pin(first, "a")
    place.blobs.pin(second, "c")
    place.blobs.hand_over([first, second, blob_id_of(b"not here")], "a", "b")
    place.restart()
    place.blobs.unpin_all("a")
    with pytest.raises(UnavailableError):
        place.blobs.put(b"one byte too many")
    place.blobs.unpin_all("c")
    with pytest.raises(UnavailableError):
        place.blobs.put(b"one byte too many")
    place.blobs.hand_over([first], "b", "a")
    place.blobs.unpin_all("b")
    place.blobs.put(b"one byte too many")
    assert [place.blobs.has(blob) for blob in (first, second)] == [True, False]


def test_more_than_the_quota_never_fits_and_costs_nothing(place: Place) -> None:
    small = place.blobs.put(b"small")
    with pytest.raises(UnavailableError) as caught:
        place.blobs.put(stuff(16 * MIB + 1))
    assert caught.value.code == "E1603"
    hashes = (bytes(32),) * 17
    with pytest.raises(FallowError):
        place.blobs.begin(blob_id_of(b"?"), 17 * MIB, hashes)
    assert place.blobs.has(small)


def test_damage_is_noticed_dropped_and_healed(place: Place) -> None:
    data = stuff(3 * CHUNK_BYTES)
    blob = place.blobs.put(data)
    place.blobs.pin(blob, "job")
    place.damage(blob, CHUNK_BYTES + 5)
    assert place.blobs.read(blob, 0, CHUNK_BYTES) == data[:CHUNK_BYTES]
    with pytest.raises(UnavailableError) as caught:
        place.blobs.read(blob, 0, len(data))
    assert caught.value.code == "E1602"
    assert not place.blobs.has(blob)
    assert place.blobs.used_bytes == 0
    place.blobs.put(data)
    assert place.blobs.read(blob, 0, len(data)) == data
    place.blobs.put(stuff(13 * MIB, 3))
    with pytest.raises(UnavailableError):  # the pin holds again
        place.blobs.put(stuff(14 * MIB, 4))


def test_a_damaged_blob_is_not_handed_out_and_a_new_put_replaces_it(place: Place) -> None:
    data = stuff(2 * CHUNK_BYTES)
    blob = place.blobs.put(data)
    place.damage(blob, 2 * CHUNK_BYTES - 1)
    with pytest.raises(UnavailableError):
        place.blobs.path(blob)
    blob = place.blobs.put(data)
    place.damage(blob, 0)
    assert place.blobs.put(data) == blob
    assert place.blobs.path(blob).read_bytes() == data


# partials -------------------------------------------------------------------------------------------------------------


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


@pytest.mark.parametrize("size_bytes", EDGES)
def test_a_blob_comes_in_by_chunks_in_any_order(place: Place, size_bytes: int) -> None:
    data = stuff(size_bytes, 1)
    partial = place.blobs.begin(blob_id_of(data), size_bytes, chunk_hashes_of(data))
    for index in reversed(partial.missing()):
        assert not place.blobs.has(blob_id_of(data))
        partial.write(index, memoryview(cut(data)[index]))
        partial.write(index, cut(data)[index])
    partial.commit()
    partial.close()
    assert place.blobs.read(blob_id_of(data), 0, size_bytes) == data
    again = place.blobs.begin(blob_id_of(data), size_bytes, chunk_hashes_of(data))
    assert not again.missing()
    again.commit()
    place.restart()
    assert place.blobs.read(blob_id_of(data), 0, size_bytes) == data


@pytest.mark.parametrize("stop", ["close", "crash"])
def test_what_came_before_a_stop_is_still_there(place: Place, stop: str) -> None:
    data = stuff(5 * CHUNK_BYTES + 1, 2)
    partial = place.blobs.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    for index in (0, 2, 5):
        partial.write(index, cut(data)[index])
    if stop == "close":
        partial.close()
    place.restart()
    partial = place.blobs.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    assert list(partial.missing()) == [1, 3, 4]
    for index in partial.missing():
        partial.write(index, cut(data)[index])
    partial.commit()
    assert place.blobs.read(blob_id_of(data), 0, len(data)) == data


def test_a_lie_about_a_chunk_keeps_nothing(place: Place) -> None:
    data = stuff(2 * CHUNK_BYTES + 7, 3)
    partial = place.blobs.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    good = cut(data)
    for index, lie in [(0, good[1]), (0, good[0][:-1]), (0, good[0] + b"x"), (2, b""), (3, b""), (-1, good[2])]:
        with pytest.raises(PeerFault) as caught:
            partial.write(index, lie)
        assert caught.value.code == "E1601"
    assert list(partial.missing()) == [0, 1, 2]
    partial.close()


@given(
    size=st.integers(0, 3 * CHUNK_BYTES),
    claimed=st.integers(0, 3 * CHUNK_BYTES),
    order=st.permutations(range(3)),
    drop=st.booleans(),
)
def test_a_lie_about_the_whole_is_refused(
    ranges: tuple[Place, BlobId, bytes], size: int, claimed: int, order: list[int], drop: bool
) -> None:
    hashes = tuple(bytes([n]) * 32 for n in range(-(-size // CHUNK_BYTES)))
    from fallow.wire.blob_id import blob_id

    blob = blob_id(hashes, size)
    lie = tuple(hashes[n] for n in order if n < len(hashes))[drop:]
    store = ranges[0].blobs
    if (claimed, lie) == (size, hashes):
        store.begin(blob, claimed, lie).close()
        return
    with pytest.raises(PeerFault) as caught:
        store.begin(blob, claimed, lie)
    assert caught.value.code == "E1601"


def test_lists_that_are_none_are_refused(place: Place) -> None:
    data = stuff(2 * CHUNK_BYTES)
    hashes = chunk_hashes_of(data)
    lies = [(len(data) - 1, hashes), (len(data), hashes[::-1]), (len(data), hashes[:1]), (1 << 62, hashes)]
    lies += [(-1, ()), (len(data), (hashes[0] + hashes[1], b""))]
    for size_bytes, lie in lies:
        with pytest.raises(PeerFault) as caught:
            place.blobs.begin(blob_id_of(data), size_bytes, lie)
        assert caught.value.code == "E1601"


def test_a_partial_counts_towards_the_quota(place: Place) -> None:
    data = stuff(10 * MIB, 4)
    partial = place.blobs.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    with pytest.raises(UnavailableError):
        place.blobs.put(stuff(7 * MIB, 5))
    for index in range(9):
        partial.write(index, cut(data)[index])
    partial.close()
    place.blobs.put(stuff(8 * MIB, 5))  # nobody works on the partial any more, so it makes room
    partial = place.blobs.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    assert len(partial.missing()) == 10
    partial.close()


def test_errors_have_the_family_that_programs_rely_on() -> None:
    families = {"E1601": PeerFault, "E1602": UnavailableError, "E1603": UnavailableError, "E1604": RejectedError}
    from fallow.errors import fail

    for code, family in families.items():
        assert type(fail(code, "x")) is family


# everything at once ---------------------------------------------------------------------------------------------------

QUOTA_BYTES = 3 * MIB
SAMPLES = [stuff(size, 100 + n) for n, size in enumerate((0, 10, 700_000, MIB, MIB + 1, 2 * MIB - 3))]
IDS = [blob_id_of(data) for data in SAMPLES]


class Store(RuleBasedStateMachine):
    """Honest and dishonest use, crashes and damage, in any order. The model knows which blobs must be here (pinned and
    not damaged) and that whatever can be read is what was put."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place(QUOTA_BYTES)
        self.pinned: dict[int, set[str]] = {}
        self.damaged: set[int] = set()

    def teardown(self) -> None:
        self.place.clean()

    @rule(n=st.integers(0, len(SAMPLES) - 1))
    def put(self, n: int) -> None:
        try:
            assert self.place.blobs.put(SAMPLES[n]) == IDS[n]
            self.damaged.discard(n)
        except UnavailableError as error:
            self.expect(error, "E1603")

    @rule(n=st.integers(0, len(SAMPLES) - 1), owner=st.sampled_from("ab"))
    def pin(self, n: int, owner: str) -> None:
        if self.place.blobs.has(IDS[n]):
            self.place.blobs.pin(IDS[n], owner)
            self.pinned.setdefault(n, set()).add(owner)

    @rule(n=st.integers(0, len(SAMPLES) - 1), owner=st.sampled_from("ab"))
    def unpin_one(self, n: int, owner: str) -> None:
        self.place.blobs.unpin(IDS[n], owner)
        self.pinned.get(n, set()).discard(owner)

    @rule(found=st.sets(st.integers(0, len(SAMPLES) - 1)), giver=st.sampled_from("ab"), taker=st.sampled_from("ab"))
    def hand_over(self, found: set[int], giver: str, taker: str) -> None:
        here = {n for n in found if self.place.blobs.has(IDS[n])}
        self.place.blobs.hand_over([IDS[n] for n in found], giver, taker)
        for n in found:
            self.pinned.get(n, set()).discard(giver)
        for n in here:
            self.pinned.setdefault(n, set()).add(taker)

    @rule(owner=st.sampled_from("ab"))
    def unpin(self, owner: str) -> None:
        self.place.blobs.unpin_all(owner)
        for owners in self.pinned.values():
            owners.discard(owner)

    @rule(
        n=st.integers(0, len(SAMPLES) - 1),
        cheat=st.sampled_from(["", "bytes", "short", "swap"]),
        stop=st.integers(0, 3),
    )
    def receive(self, n: int, cheat: str, stop: int) -> None:
        data = SAMPLES[n]
        try:
            partial = self.place.blobs.begin(IDS[n], len(data), chunk_hashes_of(data))
        except UnavailableError as error:
            self.expect(error, "E1603")
            return
        for index in list(partial.missing())[:stop]:
            self.send(partial.write, data, index, cheat)
        if not partial.missing():
            partial.commit()
        partial.close()

    def expect(self, error: FallowError, code: str) -> None:
        assert error.code == code

    def send(self, write: object, data: bytes, index: int, cheat: str) -> None:
        assert callable(write)
        honest = cut(data)[index]
        lies = {"bytes": bytes([honest[0] ^ 1]) + honest[1:], "short": honest[:-1], "swap": cut(data)[index - 1] + b""}
        if cheat and lies[cheat] != honest:
            with pytest.raises(PeerFault):
                write(index, lies[cheat])
        else:
            write(index, honest)

    @rule(n=st.integers(0, len(SAMPLES) - 1), claimed=st.integers(0, QUOTA_BYTES))
    def lie_about_size(self, n: int, claimed: int) -> None:
        if claimed != len(SAMPLES[n]):
            with pytest.raises(PeerFault):
                self.place.blobs.begin(IDS[n], claimed, chunk_hashes_of(SAMPLES[n]))

    @precondition(lambda self: any(self.place.blobs.has(blob) for blob in IDS[1:]))
    @rule(n=st.integers(1, len(SAMPLES) - 1), where=st.floats(0, 0.999))
    def damage(self, n: int, where: float) -> None:
        if self.place.blobs.has(IDS[n]) and n not in self.damaged:
            self.place.damage(IDS[n], int(where * len(SAMPLES[n])))
            self.damaged.add(n)

    @rule()
    def restart(self) -> None:
        self.place.restart()

    @rule(n=st.integers(0, len(SAMPLES) - 1))
    def read(self, n: int) -> None:
        try:
            assert self.place.blobs.read(IDS[n], 0, len(SAMPLES[n])) == SAMPLES[n]
            assert n not in self.damaged
        except UnavailableError as error:
            self.expect(error, "E1602")
            assert n in self.damaged or not self.pinned.get(n)
            self.damaged.discard(n)
            self.pinned.pop(n, None)  # from here on the model only knows that it is gone
            self.place.blobs.unpin_all("a")
            self.place.blobs.unpin_all("b")
            self.pinned.clear()

    @invariant()
    def pins_hold(self) -> None:
        for n, owners in self.pinned.items():
            assert not owners or self.place.blobs.has(IDS[n]) or n in self.damaged

    @invariant()
    def quota_holds(self) -> None:
        present = sum(len(data) for data, blob in zip(SAMPLES, IDS, strict=True) if self.place.blobs.has(blob))
        assert self.place.blobs.used_bytes == present <= QUOTA_BYTES


def test_any_sequence_of_honest_and_dishonest_use() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Store, settings=settings(max_examples=25, stateful_step_count=20))

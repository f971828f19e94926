from __future__ import annotations

import copy
import os
import pickle
import threading
from pathlib import Path

import pytest

from fallow.adapters.keys import KEY_FILE, Identity, load_identity, open_identity, save_identity
from fallow.errors import FallowError
from fallow.wire.certificates import check_certificate
from fallow.wire.documents import NO_BANK, Voucher
from fallow.wire.eip712 import recover


class CountingEntropy:
    """Bytes that differ at every draw."""

    def __init__(self, start: int = 1) -> None:
        self.drawn = start

    def draw(self, size_bytes: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size_bytes, "big")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys"


def test_keys_are_made_once_and_found_again(folder: Path) -> None:
    first = open_identity(folder, CountingEntropy())
    assert open_identity(folder, CountingEntropy(99)) == first == load_identity(folder)
    assert len({first.node, first.account, first.node_secret, first.account_secret}) == 4


def test_only_the_owner_can_reach_them_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        open_identity(folder, CountingEntropy())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in folder.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    open_identity(folder, CountingEntropy())
    (folder / KEY_FILE).chmod(mode)
    with pytest.raises(FallowError) as refused:
        open_identity(folder, CountingEntropy())
    assert refused.value.code == "E1105"
    assert "chmod 600" in refused.value.next_step


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o711])
def test_a_folder_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    open_identity(folder, CountingEntropy())
    folder.chmod(mode)
    with pytest.raises(FallowError) as refused:
        load_identity(folder)
    assert refused.value.code == "E1105"


def test_a_folder_that_others_can_reach_gets_no_keys(tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir(mode=0o777)
    wide.chmod(0o777)
    with pytest.raises(FallowError) as refused:
        open_identity(wide, CountingEntropy())
    assert refused.value.code == "E1105"
    assert not list(wide.iterdir())


def test_every_damaged_byte_is_noticed_and_no_secret_told(folder: Path) -> None:
    identity = open_identity(folder, CountingEntropy())
    path = folder / KEY_FILE
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        with pytest.raises(FallowError) as refused:
            open_identity(folder, CountingEntropy())
        assert refused.value.code == "E1106"
        assert identity.account_secret.hex()[:32] not in refused.value.five_lines()


@pytest.mark.parametrize("content", [b"", b"fallow keys 1\n", b"x" * 5000])
def test_other_content_is_refused(folder: Path, content: bytes) -> None:
    open_identity(folder, CountingEntropy())
    (folder / KEY_FILE).write_bytes(content)
    with pytest.raises(FallowError) as refused:
        load_identity(folder)
    assert refused.value.code == "E1106"


def test_a_truncated_or_extended_file_is_refused(folder: Path) -> None:
    open_identity(folder, CountingEntropy())
    path = folder / KEY_FILE
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\n", whole + whole):
        path.write_bytes(content)
        with pytest.raises(FallowError) as refused:
            load_identity(folder)
        assert refused.value.code == "E1106"


def test_links_and_pipes_are_not_followed(folder: Path, tmp_path: Path) -> None:
    open_identity(folder, CountingEntropy())
    (folder / KEY_FILE).rename(tmp_path / "elsewhere")
    (folder / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FallowError) as refused:
        load_identity(folder)
    assert refused.value.code == "E1106"
    (folder / KEY_FILE).unlink()
    os.mkfifo(folder / KEY_FILE, 0o600)
    with pytest.raises(FallowError) as refused:
        load_identity(folder)
    assert refused.value.code == "E1106"


def test_no_keys_is_said_so(folder: Path) -> None:
    with pytest.raises(FallowError) as missing:
        load_identity(folder)
    assert missing.value.code == "E2003"


def test_a_folder_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FallowError) as refused:
        open_identity(tmp_path / "file" / "keys", CountingEntropy())
    assert refused.value.code == "E1004"


def test_keys_are_never_overwritten(folder: Path) -> None:
    kept = open_identity(folder, CountingEntropy())
    other = Identity.draw(CountingEntropy(50))
    assert other != kept
    assert save_identity(folder, other) == kept


def test_a_draft_left_by_a_crash_is_in_nobodys_way(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder / f".{KEY_FILE}.abc").write_bytes(b"half a k")
    assert open_identity(folder, CountingEntropy()) == load_identity(folder)


def test_starts_at_the_same_time_agree(folder: Path) -> None:
    drafts = [Identity.draw(CountingEntropy(100 * n)) for n in range(1, 9)]
    barrier = threading.Barrier(len(drafts))
    found: list[Identity] = []

    def race(draft: Identity) -> None:
        barrier.wait()
        found.append(save_identity(folder, draft))

    threads = [threading.Thread(target=race, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(drafts)
    assert len({identity.node for identity in found}) == 1


def test_secrets_stay_inside() -> None:
    identity = Identity.draw(CountingEntropy())
    for text in (repr(identity), str(identity), f"{identity}"):
        assert identity.node_secret.hex() not in text
        assert repr(identity.node_secret) not in text
        assert repr(identity.account_secret) not in text
    with pytest.raises(TypeError):
        pickle.dumps(identity)
    with pytest.raises(TypeError):
        copy.copy(identity)


def test_an_identity_certifies_and_signs() -> None:
    identity = Identity.draw(CountingEntropy())
    certificate = check_certificate(identity.certificate(1_000), 2_000, identity.node)
    assert certificate.account == identity.account
    voucher = Voucher(lease=bytes(32), cumulative_ucr=5)
    assert recover(identity.sign(voucher, NO_BANK), NO_BANK) == (voucher, identity.account)


def test_secrets_of_a_wrong_length_are_no_keys() -> None:
    with pytest.raises(ValueError, match="32"):
        Identity.from_secrets(b"\1" * 31, b"\1" * 32)
    with pytest.raises(ValueError, match="32"):
        Identity.from_secrets(b"\1" * 32, b"\1" * 31)

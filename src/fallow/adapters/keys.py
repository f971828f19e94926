"""A node's identity on disk: the Ed25519 key of the node and the secp256k1 key of its account, in one file.

Defends against: other users of the machine reading or replacing the keys, a crash while writing them, a damaged file
taken for a key, and secrets in logs or error messages. Does not defend against whoever runs as the same user or as
root, nor against theft of the disk: the file is not encrypted.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from fallow.adapters.blobs_files import sync_folder
from fallow.errors import fail
from fallow.units import Account, NodeId
from fallow.wire.certificates import certify, node_of
from fallow.wire.documents import Document, Signed
from fallow.wire.eip712 import account_of, sign

KEY_FILE = "identity.key"
_MAX_FILE_BYTES = 1024
_FORMAT = re.compile(rb"fallow keys 1\nnode ([0-9a-f]{64})\naccount ([0-9a-f]{64})\ncheck ([0-9a-f]{16})\n")


class _Entropy(Protocol):
    def draw(self, size_bytes: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. Its text form and its pickle never hold a secret."""

    node: NodeId
    account: Account
    node_secret: bytes = field(repr=False)
    account_secret: bytes = field(repr=False)

    @classmethod
    def from_secrets(cls, node_secret: bytes, account_secret: bytes) -> Identity:
        """Derive the public halves. Raises ValueError when either secret is no key."""
        return cls(node_of(node_secret), account_of(account_secret), node_secret, account_secret)

    @classmethod
    def draw(cls, entropy: _Entropy) -> Identity:
        """New keys from 64 bytes of `entropy`."""
        return cls.from_secrets(entropy.draw(32), entropy.draw(32))

    def certificate(self, now_ms: int) -> Signed:
        """The account's word that the node speaks for it, from now on for 90 days."""
        return certify(self.account_secret, self.node, now_ms)

    def sign(self, document: Document, bank: bytes) -> Signed:
        """Sign with the account's key. Raises ValueError for a document that is invalid or names another bank."""
        return sign(document, self.account_secret, bank)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an identity does not leave its process")


def open_identity(folder: Path, entropy: _Entropy) -> Identity:
    """The identity kept in `folder`, made there on first use. Two processes that start at once get the same one.
    Raises UsageError E1105 when other users may read or replace it, E1106 when it is damaged, E1004 when the folder
    cannot be made or written."""
    if (folder / KEY_FILE).exists():
        return load_identity(folder)
    return save_identity(folder, Identity.draw(entropy))


def load_identity(folder: Path) -> Identity:
    """The identity kept in `folder`. Raises UsageError E2003 when there is none, E1105 and E1106 as above."""
    path = folder / KEY_FILE
    try:
        _refuse_wide(folder, folder.stat(), 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise fail("E2003", f"there are no keys in {folder}") from None
    except OSError as error:
        raise fail("E1106", f"the keys in {folder} cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        # Asked of the open file, not of the path, so that nobody can swap the file in between.
        _refuse_wide(path, os.fstat(descriptor), 0o600)
        return _parse(path, file.read(_MAX_FILE_BYTES + 1))


def save_identity(folder: Path, identity: Identity) -> Identity:
    """Keep `identity` in `folder`, or give back the one that is there already: keys are never overwritten, since money
    may hang on them. On disk, whole or not at all, when this returns. Raises as `open_identity`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_wide(folder, folder.stat(), 0o700)
        _write_once(folder, _file_bytes(identity))
    except OSError as error:
        raise fail("E1004", f"keys cannot be written in {folder}: {error.strerror}") from None
    return load_identity(folder)


def _write_once(folder: Path, data: bytes) -> None:
    """Write aside, flush, and link into place, which fails if a file is there; a crash leaves at most the draft."""
    descriptor, name = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=folder)  # mode 0600, a name that was free
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, folder / KEY_FILE)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(folder)


def _refuse_wide(path: Path, status: os.stat_result, most: int) -> None:
    """Refuse what other users may read or change, or what belongs to one of them."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise fail("E1105", f"{path} has mode {mode:04o}", next_step=f"chmod {most:o} {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise fail("E1105", f"{path} belongs to another user", next_step=f"chown $USER {path}")


def _file_bytes(identity: Identity) -> bytes:
    check = _checksum(identity.node_secret, identity.account_secret)
    lines = ("fallow keys 1", f"node {identity.node_secret.hex()}", f"account {identity.account_secret.hex()}")
    return "".join(f"{line}\n" for line in (*lines, f"check {check}")).encode()


def _parse(path: Path, data: bytes) -> Identity:
    found = _FORMAT.fullmatch(data)
    if found is not None:
        node, account, check = bytes.fromhex(found[1].decode()), bytes.fromhex(found[2].decode()), found[3].decode()
        if check == _checksum(node, account):
            with suppress(ValueError):
                return Identity.from_secrets(node, account)
    raise fail("E1106", f"{path} does not hold keys, or they are damaged")


def _checksum(node_secret: bytes, account_secret: bytes) -> str:
    return blake3(b"fallow keys 1" + node_secret + account_secret).hexdigest()[:16]

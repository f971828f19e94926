"""Ids, money, time and sizes: the vocabulary every other room is written in.

Ids are bytes inside and text only at the edges. Money is an integer of micro-credits (`ucr`); 1 cr = 1,000,000 ucr.
Times are integer milliseconds since the Unix epoch (`_ms`) where they are compared, seconds (`_s`) where they are
durations that a person sets. No function here reads a clock.
"""

from __future__ import annotations

import re
from typing import NewType

NodeId = NewType("NodeId", bytes)
"""32 bytes: the Ed25519 public key of a node, which is also its network address."""
Account = NewType("Account", bytes)
"""20 bytes: the Ethereum-style address of the secp256k1 key that owns money and signs documents."""
BlobId = NewType("BlobId", bytes)
"""32 bytes: BLAKE3 over a blob's size and the BLAKE3 hashes of its 1 MiB chunks; only `wire/blob_id.py` makes one. It
is not the plain BLAKE3 of the content: a chunk can be checked against it before the rest has arrived."""
Digest = NewType("Digest", bytes)
"""32 bytes: any other hash (an EIP-712 struct hash, a state hash, an output hash)."""
JobId = NewType("JobId", bytes)
"""32 bytes: random, chosen by whoever submits the job, so that submitting twice is harmless."""
LeaseId = NewType("LeaseId", bytes)
"""32 bytes: the EIP-712 hash of the lease document."""
TaskId = NewType("TaskId", bytes)
"""32 bytes: the BLAKE3 hash of the task's canonical encoding; equal work has equal ids on every provider."""
Ucr = NewType("Ucr", int)
"""Micro-credits, never negative unless a name says so."""

UCR_PER_CR = 1_000_000
MS_PER_S = 1_000
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MAX_UCR = (1 << 63) - 1

_MONEY = re.compile(r"^\s*(\d{1,13})(?:\.(\d{1,6}))?\s*(?:cr)?\s*$")
_HARMLESS = "\n\t\u00a0\u200c\u200d\u3000"
"""Line ends, wide and fixed spaces, and what joins and parts letters in Persian, Indic scripts and emoji."""
_SIZE = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?\s*$", re.IGNORECASE)
_PREFIX = {"job": "j_", "lease": "l_", "task": "t_", "blob": "b_", "node": "n_", "receipt": "r_", "account": "0x"}


def parse_money(text: str) -> Ucr:
    """Read `"0.05"`, `"2 cr"` or `"12.000001cr"` as micro-credits. Raises ValueError on anything else: no signs, no
    exponents, at most six decimals, so that no digit is ever rounded away in silence."""
    found = _MONEY.match(text)
    if found is None:
        raise ValueError(f"not an amount of credits: {text!r} (write 0.05 or 2)")
    whole, part = found.groups()
    return Ucr(int(whole) * UCR_PER_CR + int((part or "").ljust(6, "0")))


def format_money(amount_ucr: int) -> str:
    """Write micro-credits as credits, exact, with at least two decimals: 50_000 -> `"0.05 cr"`."""
    sign, amount = ("-", -amount_ucr) if amount_ucr < 0 else ("", amount_ucr)
    whole, part = divmod(amount, UCR_PER_CR)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals} cr"


def parse_size(text: str) -> int:
    """Read `"512M"`, `"2GiB"` or `"1000"` as bytes. `k m g t` are powers of 1024, as people mean them for memory.
    Raises ValueError on anything else."""
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"not a size: {text!r} (write 512M or 2G)")
    number, letter, _ = found.groups()
    return int(float(number) * 1024 ** " kmgt".index(letter.lower() or " "))


def format_size(size_bytes: int) -> str:
    """Write bytes for people: 98_362_432 -> `"93.8 MiB"`."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def cost_ucr(units: int, price_ucr: int) -> Ucr:
    """What `units` of work cost at `price_ucr` per 1,000 units, rounded up so that work is never free by rounding."""
    return Ucr(-(-units * price_ucr // 1_000))


def plain(text: str) -> str:
    """Text from strangers as a terminal or a log may have it: what would steer a terminal or turn the order of letters
    round (control and format characters, of which only the joiners of some scripts stay) becomes "?"."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _HARMLESS else "?" for letter in text)


def to_text(kind: str, value: bytes) -> str:
    """An id as people see it: `to_text("job", id)` -> `"j_3f9a…"`, all hex digits. Raises KeyError for a kind that
    has no prefix."""
    return _PREFIX[kind] + value.hex()


def from_text(kind: str, text: str) -> bytes:
    """The inverse of `to_text`; the prefix may be left out. Raises ValueError when the rest is not hex."""
    return bytes.fromhex(text.removeprefix(_PREFIX[kind]))

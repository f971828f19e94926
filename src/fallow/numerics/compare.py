"""The one place that decides whether two answers to the same task are the same answer.

Today: they are when their output hashes are equal. fp32 work with a fixed number of threads repeats bit for bit on like
machines (`Hardware.numerics` names the class), so only like machines are asked to check each other. When arithmetic is
exact, the class disappears and this function stays.
"""

from __future__ import annotations


def same_answer(claimed: bytes, replayed: bytes) -> bool:
    """Whether two output hashes (`wire.claims` makes them) stand for the same answer. Both are 32 bytes; anything else
    is no answer, and equal to nothing."""
    return len(claimed) == len(replayed) == 32 and claimed == replayed


def comparable(one: str, other: str) -> bool:
    """Whether machines of these numerics classes must give the same bits. A machine that names no class can be
    compared with none."""
    return one != "" and one == other

from __future__ import annotations

from fallow.numerics.compare import comparable, same_answer


def test_equal_hashes_are_the_same_answer() -> None:
    assert same_answer(b"a" * 32, b"a" * 32)
    assert not same_answer(b"a" * 32, b"b" * 32)


def test_what_is_no_hash_equals_nothing() -> None:
    assert not same_answer(b"", b"")
    assert not same_answer(b"a" * 31, b"a" * 31)


def test_only_machines_of_one_known_class_can_be_compared() -> None:
    assert comparable("x86 avx2 torch 2.13 t1", "x86 avx2 torch 2.13 t1")
    assert not comparable("x86 avx2 torch 2.13 t1", "arm neon torch 2.13 t1")
    assert not comparable("", "")

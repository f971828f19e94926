from __future__ import annotations

import os
import subprocess
import sys

import torch

from fallow.numerics.exact import sums


def test_both_ways_give_the_same_integers() -> None:
    a = torch.randint(-8127, 8128, (2, 3, 70), dtype=torch.int16)
    b = torch.randint(-8127, 8128, (2, 70, 5), dtype=torch.int16)
    exact = a.long() @ b.long()
    assert torch.equal(sums.fp64(a, b).long(), exact)
    assert torch.equal(sums.int8(a, b).long(), exact)


def test_digits_fit_their_bytes() -> None:
    q = torch.arange(-8127, 8128, dtype=torch.int16)
    high, low = sums._digits(q)
    assert torch.equal(high.int() * 128 + low.int(), q.int())
    assert max(int(part.int().abs().max()) for part in (high, low)) <= 64
    assert int((high.int() + low.int()).abs().max()) == 126
    assert 126**2 << 17 < 2**31


def test_more_terms_than_int32_holds_are_cut() -> None:
    k = (1 << 17) + 100
    a, b = torch.full((1, k), 8127, dtype=torch.int16), torch.full((k, 1), -8127, dtype=torch.int16)
    assert sums.int8(a, b).item() == -k * 8127**2 == sums.fp64(a, b).item()


def test_a_negative_times_zero_is_plus_zero() -> None:
    a, b = torch.tensor([[-5]], dtype=torch.int16), torch.tensor([[0]], dtype=torch.int16)
    for way in (sums.fp64, sums.int8):
        assert torch.signbit(way(a, b)).logical_not().all()


def test_int8_is_exact_on_processors_without_vnni() -> None:
    check = (
        "import torch; from fallow.numerics.exact import sums;"
        "a = torch.full((64, 96), -8127, dtype=torch.int16); b = torch.full((96, 80), 8127, dtype=torch.int16);"
        "assert torch.equal(sums.int8(a, b), sums.fp64(a, b)); assert torch.equal(sums.int8(a, -b), sums.fp64(a, -b))"
    )
    subprocess.run([sys.executable, "-c", check], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)

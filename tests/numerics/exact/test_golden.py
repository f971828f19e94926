"""The golden results on this machine, by all routes and with other numbers of threads."""

from __future__ import annotations

import pytest
import torch

from fallow.numerics.exact import golden, routes


def test_this_machine_reproduces_them() -> None:
    assert golden.differing() == []


@pytest.mark.parametrize("route", ["fp64", "int8"])
@pytest.mark.parametrize("threads", [1, 3])
def test_route_and_threads_change_nothing(route: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with routes.use(route):
            assert golden.computed() == golden.EXPECTED
    finally:
        torch.set_num_threads(before)


def test_a_difference_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(golden.EXPECTED, "product", "0" * 64)
    assert golden.main() == 1
    assert capsys.readouterr().out == "product\n"

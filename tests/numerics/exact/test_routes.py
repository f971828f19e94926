from __future__ import annotations

import pytest
import torch

from fallow.numerics.exact import native, routes
from fallow.numerics.exact.routes import Route

CPU = torch.device("cpu")


def test_a_block_chooses_its_route_and_the_one_before_comes_back() -> None:
    before = routes.chosen(CPU)
    with routes.use("int8"):
        assert routes.chosen(CPU) is Route.INT8
        with routes.use(Route.FP64):
            assert routes.chosen(CPU) is Route.FP64
        assert routes.chosen(CPU) is Route.INT8
    assert routes.chosen(CPU) is before


def test_a_process_chooses_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLOW_EXACT_ROUTE", "int8")
    assert routes.chosen(CPU) is Route.INT8
    monkeypatch.setenv("FALLOW_EXACT_ROUTE", "int9")
    with pytest.raises(ValueError, match="int9"):
        routes.chosen(CPU)


def test_without_the_kernel_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    assert routes.chosen(CPU) is Route.FP64
    with pytest.raises(RuntimeError), routes.use("native"):
        pass


def test_other_devices_take_torch_s_kernels() -> None:
    assert routes.chosen(torch.device("cuda")) is Route.FP64

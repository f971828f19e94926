"""Which way exact products take. All ways give the same bits; they differ in speed and in what they need.

The environment variable FALLOW_EXACT_ROUTE (`fp64`, `int8`, `native`) chooses for a process; `use` chooses for a block.
Without either it is the compiled kernel on a CPU that has it, else integers as binary64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch

from fallow.numerics.exact import native
from fallow.numerics.exact.bindings import Kernels


class Route(StrEnum):
    """FP64: any BLAS on binary64. INT8: three int8 products (tensor cores). NATIVE: the compiled int16 kernel (CPU)."""

    FP64 = "fp64"
    INT8 = "int8"
    NATIVE = "native"


_asked: list[Route] = []


@contextmanager
def use(route: Route | str) -> Iterator[None]:
    """Inside, products take this route. Of the process, not of the thread: autograd runs backward passes in threads of
    its own. Raises RuntimeError for NATIVE where there is no compiled kernel."""
    route = Route(route)
    if route is Route.NATIVE and not native.available():
        raise RuntimeError("the compiled kernel is not available: " + native.reason())
    _asked.append(route)
    try:
        yield
    finally:
        _asked.pop()


def chosen(device: torch.device) -> Route:
    """The route of a product of tensors on `device`."""
    asked = _asked[-1] if _asked else Route(os.environ.get("FALLOW_EXACT_ROUTE") or Route.NATIVE)
    if asked is Route.NATIVE and (device.type != "cpu" or not native.available()):
        return Route.FP64
    return asked


def compiled(device: torch.device) -> Kernels | None:
    """The compiled kernels where they are the route of a product on `device`."""
    return native.kernels() if chosen(device) is Route.NATIVE else None

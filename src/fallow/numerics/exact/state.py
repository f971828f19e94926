"""One hash of a training state: equal exactly when all parameters and the optimiser's tensors are, bit for bit.

Source: docs/spec/exact-arithmetic.md, section 20.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from fallow.numerics.fingerprint import tensors_hash
from fallow.numerics.layout import Array
from fallow.units import Digest


class Stateful(Protocol):
    """An optimiser."""

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        ...


def training_state(parameters: Mapping[str, Tensor], optimizer: Stateful | None = None) -> dict[str, Array]:
    """The tensors of a state by the names that they are hashed under: `parameter/...` and `optimizer/...`."""
    named = {f"parameter/{name}": value for name, value in parameters.items()}
    if optimizer is not None:
        named |= {f"optimizer/{name}": value for name, value in optimizer.state().items()}
    return {name: value.detach().cpu().numpy() for name, value in named.items()}


def state_hash(parameters: Mapping[str, Tensor], optimizer: Stateful | None = None) -> Digest:
    """BLAKE3 over the state's tensors (`fingerprint.tensors_hash`); every NaN counts as the same one."""
    return tensors_hash(training_state(parameters, optimizer))

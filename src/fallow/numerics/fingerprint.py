"""The hash of a state: 32 bytes that are equal exactly when the tensors are, bit for bit, but that all NaNs of binary32
count as one (section 2 of docs/spec/exact-arithmetic.md): which of them comes out differs between machines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from fallow.numerics.aggregate import SharedState
from fallow.numerics.layout import Array
from fallow.units import Digest


def tensors_hash(tensors: Mapping[str, Array]) -> Digest:
    """BLAKE3 over the tensors sorted by name: for each, a line `name|type|shape|size` and its little-endian bytes. The
    sizes delimit, so no two different sets of tensors give the same input to the hash."""
    state = blake3(b"fallow tensors 1\n")
    for name in sorted(tensors):
        array = _with_one_nan(np.ascontiguousarray(tensors[name]))
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        shape = ",".join(str(length) for length in array.shape)
        state.update(f"{len(name.encode())}:{name}|{array.dtype.str}|{shape}|{array.nbytes}\n".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return Digest(state.digest())


def _with_one_nan(array: Array) -> Array:
    if array.dtype != np.float32 or not np.isnan(array).any():
        return array
    return np.where(np.isnan(array), np.uint32(0x7FC00000).view(np.float32), array)


def state_hash(state: SharedState) -> Digest:
    """The hash of what all workers of a training job agree on: parameters and outer momentum."""
    tensors: dict[str, Array] = {f"theta/{name}": value for name, value in state.theta.items()}
    tensors |= {f"momentum/{name}": value for name, value in state.momentum.items()}
    return tensors_hash(tensors)

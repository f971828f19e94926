from __future__ import annotations

import numpy as np

from fallow.numerics.aggregate import SharedState
from fallow.numerics.fingerprint import state_hash, tensors_hash

BASE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, dtype=np.float32)}


def test_equal_tensors_have_equal_hashes_whatever_their_order_and_strides() -> None:
    turned = {"b": BASE["b"].copy(), "a": np.asfortranarray(BASE["a"])}
    assert tensors_hash(turned) == tensors_hash(BASE)
    assert len(tensors_hash(BASE)) == 32


def test_everything_else_changes_the_hash() -> None:
    bit = BASE["a"].copy()
    bit.view(np.uint32)[1, 1] ^= 1
    others = [
        BASE | {"a": bit},
        BASE | {"a": BASE["a"].reshape(3, 2)},
        BASE | {"a": BASE["a"].astype(np.float64)},
        BASE | {"a": BASE["a"].view(np.int32)},
        BASE | {"b": -BASE["b"]},  # minus zero equals zero, but is another state
        BASE | {"c": np.zeros(0, dtype=np.float32)},
        {"a": BASE["a"], "b2": BASE["b"]},
        {"a": BASE["a"]},
    ]
    hashes = {tensors_hash(other) for other in others}
    assert len(hashes) == len(others)
    assert tensors_hash(BASE) not in hashes


def test_the_vector() -> None:
    """Another implementation must come to the same 32 bytes."""
    assert tensors_hash(BASE).hex() == VECTOR


def test_parameters_and_momentum_are_not_confused() -> None:
    one = SharedState({"a": BASE["a"]}, {"a": np.zeros_like(BASE["a"])})
    other = SharedState({"a": np.zeros_like(BASE["a"])}, {"a": BASE["a"]})
    assert state_hash(one) != state_hash(other)


VECTOR = "5a32da072ba5d7df14767c87d61bfb0952845aafc50efbbcd102bd080f9c14cd"

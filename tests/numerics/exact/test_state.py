from __future__ import annotations

import numpy as np
import torch

from fallow.numerics.exact.optimizers import ExactAdamW
from fallow.numerics.exact.state import state_hash


def test_every_bit_of_parameters_and_optimiser_counts() -> None:
    parameters = {"b": torch.ones(3), "a": torch.zeros(2, 2)}
    optimizer = ExactAdamW(parameters)
    first = state_hash(parameters, optimizer)
    assert state_hash(dict(reversed(parameters.items())), optimizer) == first
    assert state_hash(parameters) != first
    optimizer.steps = 1
    assert state_hash(parameters, optimizer) != first
    optimizer.steps = 0
    optimizer.means["a"][0, 1] = -0.0
    assert state_hash(parameters, optimizer) != first


def test_all_nans_are_one() -> None:
    words = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000], dtype=np.uint32)
    odd = torch.from_numpy(words.view(np.float32))
    assert state_hash({"a": odd}) == state_hash({"a": torch.full((3,), float("nan"))})
    assert state_hash({"a": odd}) != state_hash({"a": torch.full((3,), float("inf"))})

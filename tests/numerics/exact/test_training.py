from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.numerics.exact.processor import held_to
from tests.numerics.exact.small_llama import small_llama, some_tokens

from fallow.numerics.exact import native, routes
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.optimizers import ExactAdamW, ExactSchedule
from fallow.numerics.exact.training import Rules, Trainer, state_hash

RULES = Rules(ExactSchedule(0.01, 2, 10), decay=0.1, clip_norm=0.5)


def trained(parts: list[list[int]], steps: int = 3, route: str = "fp64", threads: int = 1) -> bytes:
    """The state hash after `steps` steps on four sequences cut as `parts` says."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with routes.use(route):
            trainer = Trainer(exactify(small_llama()), RULES)
            for step in range(steps):
                tokens = some_tokens(4, 16, seed=step)
                trainer.train(tokens[part] for part in parts)
    finally:
        torch.set_num_threads(before)
    return trainer.state_hash()


def test_one_state_hash_whatever_cuts_routes_and_threads() -> None:
    whole = trained([[0, 1, 2, 3]])
    assert trained([[0, 1], [2, 3]], threads=2) == whole
    assert trained([[3], [0], [2], [1]], route="int8") == whole
    assert trained([[0, 1, 2, 3]], steps=2) != whole


def test_loss_falls_and_is_that_of_the_batch() -> None:
    trainer = Trainer(exactify(small_llama()), Rules(ExactSchedule(0.02, 1, 40)))
    tokens = some_tokens(4, 16)
    losses = [trainer.train([tokens]) for _ in range(25)]
    assert losses[-1] < losses[0] * 0.7
    assert trainer.train([tokens]) == pytest.approx(float(trainer.model.losses(tokens).mean()), rel=0.2)


def test_a_run_continues_from_its_saved_state() -> None:
    whole = Trainer(exactify(small_llama()), RULES)
    for step in range(4):
        whole.train([some_tokens(2, 12, seed=step)])
    network = small_llama()
    first = Trainer(exactify(network), RULES)
    for step in range(2):
        first.train([some_tokens(2, 12, seed=step)])
    saved = {name: value.clone() for name, value in first.optimizer.state().items()}
    model = exactify(network)
    optimizer = ExactAdamW(model.trainable)
    optimizer.restore(saved)
    second = Trainer(model, RULES, optimizer)
    second.step = 2
    for step in range(2, 4):
        second.train([some_tokens(2, 12, seed=step)])
    assert second.state_hash() == whole.state_hash()


def test_another_process_with_older_instructions_and_without_a_compiler_agrees() -> None:
    older = held_to("avx2") | {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    older |= {"FALLOW_EXACT_NATIVE": "0", "FALLOW_EXACT_ROUTE": "int8"}
    script = (
        "from tests.numerics.exact.test_training import trained;"
        "print(trained([[2], [0, 1, 3]], steps=2, route='int8').hex())"
    )
    root = Path(__file__).resolve().parents[3]
    place = {"PYTHONPATH": os.pathsep.join((str(root), *sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | older | place, check=True, stdout=-1, text=True
    )
    if native.available():
        assert trained([[0, 1, 2, 3]], steps=2, route="native", threads=2).hex() == done.stdout.strip()
    assert trained([[0, 1, 2, 3]], steps=2).hex() == done.stdout.strip()


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

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fallow.errors import FallowError
from fallow.workloads.inner import BETA_1, BETA_2, EPSILON, FINAL_RATE, AdamW, Schedule


def parameters(seed: int = 1) -> dict[str, nn.Parameter]:
    torch.manual_seed(seed)
    return {"w": nn.Parameter(torch.randn(4, 3)), "b": nn.Parameter(torch.randn(3))}


def teach(found: dict[str, nn.Parameter], step: int) -> None:
    for at, parameter in enumerate(found.values()):
        parameter.grad = torch.sin(parameter.detach() * (step + at + 1))


def test_it_is_torchs_adamw() -> None:
    ours, theirs = parameters(), parameters()
    mine = AdamW(ours)
    reference = torch.optim.AdamW(theirs.values(), lr=0.01, betas=(BETA_1, BETA_2), eps=EPSILON, weight_decay=0.1)
    for step in range(5):
        teach(ours, step)
        teach(theirs, step)
        mine.step(0.01, 0.1)
        reference.step()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    assert not torch.equal(ours["w"], parameters()["w"])


def test_saved_and_loaded_it_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, halves = parameters(), parameters()
    straight, first = AdamW(whole), AdamW(halves)
    for step in range(4):
        teach(whole, step)
        straight.step(0.01, 0.0)
    for step in range(2):
        teach(halves, step)
        first.step(0.01, 0.0)
    first.save(tmp_path / "carry")
    second = AdamW(halves)
    second.load(tmp_path / "carry")
    assert second.steps == 2
    for step in range(2, 4):
        teach(halves, step)
        second.step(0.01, 0.0)
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_state_that_does_not_fit(tmp_path: Path) -> None:
    carry = tmp_path / "carry"
    AdamW(parameters()).save(carry)
    with pytest.raises(FallowError) as caught:
        AdamW({"w": nn.Parameter(torch.zeros(4, 4))}).load(carry)
    assert caught.value.code == "E1705"
    broken = AdamW(parameters())
    broken._means["w"][0, 0] = torch.nan
    broken.save(carry)
    with pytest.raises(FallowError):
        AdamW(parameters()).load(carry)
    negative = AdamW(parameters())
    negative.steps = -1
    negative.save(carry)
    with pytest.raises(FallowError):
        AdamW(parameters()).load(carry)


def test_clipping() -> None:
    found = parameters()
    for parameter in found.values():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimiser = AdamW(found)
    assert optimiser.clip(0) == pytest.approx(2 * 15**0.5)
    assert optimiser.clip(1.0) == pytest.approx(2 * 15**0.5)
    assert optimiser.clip(1.0) == pytest.approx(1.0)


def test_the_schedule_follows_the_global_step() -> None:
    schedule = Schedule(1.0, 2, 12)
    rates = [schedule.rate(step) for step in range(14)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[7] == pytest.approx((1 + FINAL_RATE) / 2)
    assert rates[12] == rates[13] == pytest.approx(FINAL_RATE)
    assert Schedule(1.0, 0, 0).rate(0) == 1.0

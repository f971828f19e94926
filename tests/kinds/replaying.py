"""Receipts of work that is done again, and what is planned for them."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.kinds.train.test_trace import claimed, round_spec, word
from tests.wire.parties import REQUESTER, lane_receipt, receipt

from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.kinds.replay import NoReplay, ReplayPlan
from fallow.kinds.train.trace import Cut
from fallow.rules.replay import plan
from fallow.wire import codec
from fallow.wire.documents import Order
from fallow.wire.receipts import LaneWork, Receipt, TaskWork
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec

SEED = b"s" * 32
RECIPE = Recipe("lora", inner_steps=100, batch_sequences=2, sequence_tokens=64, rounds=3, arithmetic="exact")
LOGITS = b"l" * 32
FINE = Cut(2, 1)


def of_task(task: TaskSpec, output: TaskOutput, numerics: str = "") -> Receipt:
    """Signatures are checked elsewhere."""
    made = receipt()
    order = msgspec.structs.replace(codec.decode(Order, made.order.body), numerics=numerics)
    return msgspec.structs.replace(made, work=TaskWork(task, output), order=REQUESTER.sign(order))


def a_round(recipe: Recipe = RECIPE, cut: Cut = FINE, **changes: Any) -> Receipt:
    spec, params = round_spec(recipe)
    params = msgspec.structs.replace(params, **changes)
    output = claimed(recipe.inner_steps, cut)
    return of_task(msgspec.structs.replace(spec, params=codec.encode(params)), output)


def planned(of: Receipt, links: int = 2) -> ReplayPlan:
    found = plan(of, links, SEED)
    assert isinstance(found, ReplayPlan), found
    return found


def refused(of: Receipt, links: int = 2) -> NoReplay:
    found = plan(of, links, SEED)
    assert isinstance(found, NoReplay), found
    return found


def answered(value: GenerateValue, asked: int = 9, numerics: str = "", *, lane: bool = False) -> Receipt:
    params = codec.encode(Generate((), "hello", asked))
    if lane:
        order = msgspec.structs.replace(codec.decode(Order, receipt().order.body), kind="generate")
        work = LaneWork(1, params, 4, codec.encode(value), 5)
        return msgspec.structs.replace(lane_receipt(), work=work, order=REQUESTER.sign(order))
    task = TaskSpec("generate", params, (Part("model", word("model"), 1),), 4, 9, 60, 1 << 30)
    return of_task(task, TaskOutput(codec.encode(value), ()), numerics)

"""A receipt of work that was checked by sample."""

from __future__ import annotations

from msgspec.structs import replace
from tests.kinds.train.test_trace import claimed, round_spec
from tests.wire.parties import (
    AUDITORS,
    BANK,
    BYSTANDERS,
    ORDER,
    PROVIDER,
    SEED,
    changed,
    claim_of,
    deal,
    draw,
    receipt,
)

from fallow.kinds.train.kind import CHAIN
from fallow.kinds.train.trace import Cut
from fallow.rules import trust
from fallow.wire.claims import MerkleTree, output_hash, task_id, task_leaf
from fallow.wire.documents import ClaimRoot, Settlement
from fallow.wire.ledger import Evidence
from fallow.wire.receipts import Receipt, TaskWork
from fallow.wire.tasks import Recipe


def sampled_receipt(links: tuple[int, ...] | None = None, seed: bytes = SEED) -> Receipt:
    """A round in exact arithmetic, of which one auditor did two links again: those that were drawn, or others."""
    recipe = Recipe("lora", inner_steps=10, batch_sequences=2, sequence_tokens=64, rounds=3, arithmetic="exact")
    order = replace(ORDER, kind="train", verify="audit:links=2,rate=1")
    (task, _), output, made = round_spec(recipe), claimed(10, Cut(2, 1)), deal(PROVIDER, order)
    claim, index, path = claim_of(made, task_leaf(task_id(task), output_hash(output), task.units), 25)
    found = trust.draw_links(SEED, CHAIN.links(task, output), 2) if links is None else links
    check = CHAIN.check(task, output, found)
    theirs = deal(AUDITORS[0], order)
    leaf = task_leaf(task_id(check.task), output_hash(check.expected), check.task.units)
    root = ClaimRoot(theirs.lease_id, 1, MerkleTree([leaf]).root, 1, check.task.units)
    sample = Evidence(
        AUDITORS[0].sign(theirs.lease), AUDITORS[0].sign(root), output_hash(check.expected), check.task.units, 0, ()
    )
    word = BANK.sign(Settlement(theirs.lease_id, 0, 0, 0, 0))
    return changed(
        receipt(made), claim=claim, index=index, path=path, work=TaskWork(task, output), verdict="cleared",
        evidence=(), sampled=sample, standings=(word,), draw=draw(claim, seed=seed),
        undrawn=trust.after(SEED, [AUDITORS[0].account], BYSTANDERS)[:16],
    )  # fmt: skip

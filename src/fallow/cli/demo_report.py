"""What the demo reports, and whether it kept its promise."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fallow.cli.demo_net import Network
from fallow.errors import FallowError, fail
from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.node.config import load_config, load_ticket
from fallow.rules.steward.proof import Anchor, Proof, prove
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.units import to_text
from fallow.wire.codec import decode
from fallow.wire.documents import Lease
from fallow.wire.local import JobView, PoolBooks, SeeBooks
from fallow.wire.receipts import Receipt, TaskWork, read_receipt

CHANCY = ("skip", "flip")
"""Cheats that a check of one round may miss."""
SETTLE_TRIES = 150
SIGN_TRIES = 100


async def check_receipts(client: AsyncFallow, job: AsyncJob, chat_receipt: str, folder: Path) -> list[dict[str, Any]]:
    """Write all receipts as files, check each from the file and the account of the pool's bank alone, and check that a
    changed byte is noticed."""
    ticket = load_ticket(client.home)
    anchor = Anchor(ticket.bank_account, "the demo's bank") if ticket is not None else None
    ids = [to_text("receipt", receipt) for receipt in await job.receipts()]
    found: list[dict[str, Any]] = []
    for name in [*ids, chat_receipt]:
        data = await _signed(client, name)
        path = folder / f"{name}.receipt"
        path.write_bytes(data)
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        good, noticed = prove(path.read_bytes(), anchor), prove(changed, anchor).outcome == "fails"
        found.append(
            {"id": name, "file": str(path), "holds": good.outcome == "holds", "open": _is_open(good),
             "lacks": list(good.lacks), "changed_byte_noticed": noticed}
        )  # fmt: skip
    return found


def _is_open(proof: Proof) -> bool:
    """Whether it is the receipt of a cheat, and lacks nothing but the bank's last word: who is charged may still
    appeal."""
    rejected = proof.receipt is not None and proof.receipt.verdict == "rejected"
    return rejected and [(check.name, check.missing) for check in proof.checks if not check.ok] == [("bank", True)]


async def _signed(client: AsyncFallow, name: str) -> bytes:
    """A receipt; a lane's is there once the provider has signed its batch, which takes a moment."""
    error: FallowError = fail("E2002", f"There is no receipt {name}.")
    for _ in range(SIGN_TRIES):
        try:
            return await client.receipt(name)
        except FallowError as caught:
            error = caught
        await asyncio.sleep(0.1)
    raise error


async def build_report(
    client: AsyncFallow, network: Network, job: AsyncJob, data: Path, chat: dict[str, Any]
) -> dict[str, Any]:
    """The report of a demo whose job is done, once every lease is settled or as far as they are."""
    view = await _settled(job)
    providers = await _providers(network, view)
    cheat = next(one for one in providers if one["role"] == "cheat")
    books = await client.call(SeeBooks(), PoolBooks)
    losses = [r.loss for r in view.rounds if r.loss]
    return {
        "ok": False,
        "seconds": 0.0,
        "model": "SmolLM2-135M-Instruct",
        "data_bytes": data.stat().st_size,
        "providers": providers,
        "train": {
            "rounds": sum(r.updates > 0 for r in view.rounds),
            "loss_first": float(losses[0]) if losses else None,
            "loss_last": float(losses[-1]) if losses else None,
            "bytes_sent": sum(r.bytes_sent for r in view.rounds),
            "sampled": await _sampled(client, job),
            "state_hashes_agree": bool(view.rounds) and all(r.agreed for r in view.rounds),
        },
        "cheat": {
            "kind": "lazy",
            "caught": cheat["slashed_ucr"] > 0,
            "paid_ucr": cheat["paid_ucr"],
            "paid_rounds": await _paid_rounds(client, job, bytes.fromhex(cheat["id"].removeprefix("0x"))),
        },
        "ledger": {
            "minted_ucr": books.minted_ucr,
            "sum_ucr": books.sum_ucr,
            "conserved": books.minted_ucr == books.sum_ucr,
        },
        "chat": chat,
    }


async def _rounds(client: AsyncFallow, job: AsyncJob) -> list[Receipt]:
    """The receipts of the job's rounds of training that are to be paid."""
    found = [read_receipt(await client.receipt(to_text("receipt", one))) for one in await job.receipts()]
    return [receipt for receipt in found if receipt.owed and _is_round(receipt)]


def _is_round(receipt: Receipt) -> bool:
    return isinstance(receipt.work, TaskWork) and isinstance(
        decode(TrainParams, receipt.work.task.params), TrainRound
    )  # fmt: skip


async def _paid_rounds(client: AsyncFallow, job: AsyncJob, provider: bytes) -> int:
    rounds = await _rounds(client, job)
    return sum(decode(Lease, receipt.lease.body).provider == provider for receipt in rounds)


async def _sampled(client: AsyncFallow, job: AsyncJob) -> int:
    return sum("done again by" in note for receipt in await _rounds(client, job) for note in receipt.notes)


async def _settled(job: AsyncJob) -> JobView:
    view = await job.view()
    for _ in range(SETTLE_TRIES):
        if all(lease.state in ("closed", "banned") for lease in view.leases) and view.phase == "done":
            break
        await asyncio.sleep(0.2)
        view = await job.view()
    return view


async def _providers(network: Network, view: JobView) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for member in network.providers:
        account = bytes.fromhex(member.announced["account"].removeprefix("0x"))
        leases = [lease for lease in view.leases if lease.account == account]
        found.append(
            {
                "id": member.announced["account"],
                "role": "cheat" if member.cheats else "honest",
                "threads": load_config(member.home).provider.threads,
                "tasks": sum(lease.tasks_claimed for lease in leases),
                "paid_ucr": sum(lease.paid_ucr for lease in leases),
                "slashed_ucr": sum(lease.slashed_ucr for lease in leases),
            }
        )
    return found


def shortcomings(report: dict[str, Any]) -> list[str]:
    """What the demo promised and did not keep; empty when all is well."""
    train, cheat, chat = report["train"], report["cheat"], report["chat"]
    honest = [one for one in report["providers"] if one["role"] == "honest"]
    promises = {
        "held-out loss falls": train["loss_first"] is not None and train["loss_last"] < train["loss_first"],
        "at least two rounds": train["rounds"] >= 2,
        "all workers held the same state in every round": train["state_hashes_agree"],
        "the cheat is caught": cheat["caught"] or cheat["kind"] in CHANCY,
        "the cheat is paid for no training": cheat["paid_rounds"] == 0 or cheat["kind"] in CHANCY,
        "every honest provider is paid": all(one["paid_ucr"] > 0 for one in honest),
        "no honest provider is slashed": all(one["slashed_ucr"] == 0 for one in honest),
        "money is conserved": report["ledger"]["conserved"],
        "the tuned model answers": bool(chat["answer"].strip()) and chat["tokens"] > 0,
        "every receipt holds": bool(report["receipts"])
        and all(one["holds"] or one["open"] for one in report["receipts"]),
        "a changed receipt is noticed": all(one["changed_byte_noticed"] for one in report["receipts"]),
        "the text has at least 100 kB": report["data_bytes"] >= 100_000,
    }
    return [promise for promise, kept in promises.items() if not kept]

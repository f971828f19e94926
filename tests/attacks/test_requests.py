"""Requests made up within the letter of the wire: whatever is asked, the answer has a code of its own, and no stranger
makes a node say that it has a bug."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import NonInteractiveExampleWarning
from tests.attacks.target import Strangers, answer_code, identity, target
from tests.wire.making import structs

from fallow.adapters.clock import SystemClock
from fallow.errors import FallowError
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.wire import local
from fallow.wire.ledger import GetBalance, GetBooks, GetSettlement, LedgerRequest, OpenAccount
from fallow.wire.messages import (
    AssignTask,
    BlobStat,
    CancelTask,
    CloseLease,
    FetchBlob,
    GetLaneLeaves,
    Message,
    OpenLane,
    PayVoucher,
    PrefetchBlobs,
    PublishOffer,
    RequestQuote,
    SearchOffers,
    SignLease,
    WatchLease,
)

EACH = 12
REMOTE: tuple[type[Message], ...] = (
    *get_args(LedgerRequest), GetBalance, GetBooks, GetSettlement, PublishOffer, SearchOffers, BlobStat, FetchBlob,
    RequestQuote, SignLease, AssignTask, CancelTask, PrefetchBlobs, PayVoucher, CloseLease, GetLaneLeaves, WatchLease,
    OpenLane,
)  # fmt: skip
OWN: tuple[type[Message], ...] = (
    local.MoveMoney, local.EstimateJob, local.SubmitJob, local.GetJob, local.CancelJob, local.GetResults, local.WhyJob,
    local.ListReceipts, local.GetReceipt, local.LayOut, local.MakeKey, local.ChangeKey, local.CheckKey, local.WatchJob,
    local.OpenJobLane,
)  # fmt: skip


def made(kind: type[Message], count: int) -> list[Any]:
    """Values of `kind` within all of its constraints."""
    found: list[Any] = []

    @settings(
        max_examples=count, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )  # fmt: skip
    @given(structs(kind))
    def collect(value: Any) -> None:
        found.append(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        collect()
    return found


async def test_no_request_of_a_peer_is_a_bug_of_ours(tmp_path: Path) -> None:
    """A stranger and a member send what is well-formed and makes no sense, to every role at once. Gained: 0; each is
    answered or refused by its own code, never with E9001 (which peers hear as E1806), and the node lives."""
    async with target(tmp_path, "--roles", "bank,directory,steward,provider") as node, Strangers() as strangers:
        stranger, member = await strangers.rpc(1), await strangers.rpc(2)
        certificate = identity(2).certificate(SystemClock().now_ms())
        await member.call(node.address, OpenAccount(bytes(32), certificate, node.ticket.token))
        said: Counter[tuple[str, str]] = Counter()
        for kind in REMOTE:
            for request in made(kind, EACH):
                for rpc in (stranger, member):
                    said[kind.__name__, await answer_code(rpc, node.address, request)] += 1
        assert not [name for name, code in said if code in ("E1806", "E9001")], said
        assert node.alive()


async def test_no_request_of_the_owner_is_a_bug_of_ours(tmp_path: Path) -> None:
    """The owner's own programs ask for what makes no sense. They hear a code that says so."""
    async with target(tmp_path, "--roles", "bank,directory,steward") as node:
        socket = NodeSocket(socket_path(node.member.home))
        said: Counter[tuple[str, str]] = Counter()
        for kind in OWN:
            for request in made(kind, EACH):
                try:
                    async with socket.open(request) as stream:
                        await stream.finish()
                        async for _ in stream:
                            break
                    code = ""
                except FallowError as error:
                    code = error.code
                said[kind.__name__, code] += 1
        assert not [name for name, code in said if code == "E9001"], said
        assert node.alive()

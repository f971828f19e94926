"""What requesters ask, and what is checked before the machine hears of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.node.provider.provider_net import Buyer, Seller, market, open_pool, seeded, spec

from fallow.errors import FallowError
from fallow.kinds.spin import SPINS_A_UNIT
from fallow.node.router import Router
from fallow.units import GIB, BlobId
from fallow.wire.documents import Lease, Quote
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.messages import AssignTask, Declined, Ok, PrefetchBlobs, Quoted, RequestQuote, SignLease
from fallow.wire.tasks import Part


async def refused(buyer: Buyer, request: object) -> str:
    with pytest.raises(FallowError) as error:
        await buyer.ask(request)  # type: ignore[arg-type]
    return error.value.code


async def test_a_quote_is_signed_and_repeating_the_order_gives_the_same(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        order, bank = buyer.order(), buyer.services.bank_account
        first = await buyer.quote(order)
        assert isinstance(first, Quoted)
        quote = open_signed(first.quote, Quote, bank, buyer.seller.services.identity.account)
        assert quote.order == hash_document(order, bank)
        assert await buyer.quote(order) == first


async def test_declining_says_by_how_much(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        answer = await buyer.quote(buyer.order(cpu_millis=5_000, ram_bytes=64 * GIB, max_price_ucr=1))
        assert isinstance(answer, Declined)
        rows = {row.resource: (row.wanted, row.have) for row in answer.shortfalls}
        assert rows["cpu_millis"] == (5_000, 2_000)
        assert rows["ram_bytes"] == (64 * GIB, 2 * GIB)
        assert rows["price_ucr"] == (1, 1_000)


async def test_the_same_lease_is_signed_alike_and_the_same_bytes(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        theirs = await buyer.sign()
        assert theirs.body == buyer.ours.body
        assert open_signed(theirs, Lease, buyer.services.bank_account, buyer.seller.services.identity.account)
        assert (await buyer.ask(SignLease(buyer.ours))).lease == theirs  # type: ignore[attr-defined]


async def test_orders_in_another_name_are_refused(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        seller = await Seller(pool).start()
        anna = Buyer(await pool.services("anna", Router()), seller)
        eve = Buyer(await pool.services("eve", Router()), seller)
        bank, now_ms, order = anna.services.bank_account, anna.services.clock.now_ms(), anna.order()
        hers = anna.services.identity.sign(order, bank)
        contact = eve.services.rpc.address()
        annas = anna.services.identity.certificate(now_ms)
        eves = eve.services.identity.certificate(now_ms)
        forged = eve.services.identity.sign(order, bank)
        assert await refused(eve, RequestQuote(hers, annas, contact)) == "E1101"
        assert await refused(eve, RequestQuote(hers, eves, contact)) == "E1101"
        assert await refused(eve, RequestQuote(forged, eves, contact)) == "E1101"
        other = seeded("other bank").account
        foreign = anna.services.identity.sign(msgspec.structs.replace(order, bank=other), other)
        assert await refused(anna, RequestQuote(foreign, annas, contact)) == "E1101"
        assert await refused(anna, RequestQuote(annas, annas, contact)) in ("E1101", "E1102")
        assert seller.provider.state.reservations == {}


async def test_an_expired_certificate_speaks_for_nobody(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        me = buyer.services.identity
        order = me.sign(buyer.order(), buyer.services.bank_account)
        request = RequestQuote(order, me.certificate(1), buyer.services.rpc.address())
        assert await refused(buyer, request) == "E1103"


async def test_more_than_the_cap_covers_is_refused_with_a_code(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open(cap_ucr=5)
        assert await refused(buyer, AssignTask(buyer.lease, spec(units=6), ())) == "E1205"
        assert await refused(buyer, AssignTask(bytes(32), spec(), ())) == "E1204"


async def test_a_task_that_is_metered_below_what_it_is_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open("spin")
        work = b"%d" % (3 * SPINS_A_UNIT)
        with pytest.raises(FallowError, match="3 units of spin") as caught:
            await buyer.ask(AssignTask(buyer.lease, spec(work, "spin", units=2), ()))
        assert caught.value.code == "E1205"
        assert buyer.seller.provider.state.leases[buyer.lease].tasks == {}
        assert isinstance(await buyer.ask(AssignTask(buyer.lease, spec(work, "spin", units=3), ())), Ok)
        assert isinstance(await buyer.ask(AssignTask(buyer.lease, spec(b"no number", "spin"), ())), Ok)  # its worker's


async def test_unknown_kinds_are_refused_by_name(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        declined = await buyer.quote(buyer.order("render"))
        assert isinstance(declined, Declined)
        assert [lack.note for lack in declined.shortfalls if lack.resource == "kind"] == [
            "does no work of kind 'render'"
        ]
        await buyer.open()
        with pytest.raises(FallowError, match="not for render") as caught:
            await buyer.ask(AssignTask(buyer.lease, spec(kind="render"), ()))
        assert caught.value.code == "E1205"


async def test_only_the_requester_of_a_lease_may_have_blobs_fetched(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        blobs = buyer.seller.services.blobs
        blob = buyer.services.blobs.put(b"soon needed")
        wish = PrefetchBlobs(buyer.lease, (Part("update/1", blob, 11),), (buyer.services.rpc.address(),))
        await buyer.assign(spec())
        await buyer.claimed()
        assert isinstance(await buyer.ask(wish), Ok)
        work = buyer.seller.provider.work(buyer.lease)
        assert work is not None
        await asyncio.wait(work._prefetches)
        assert blobs.has(BlobId(blob))
        assert await refused(buyer, PrefetchBlobs(b"x" * 32, (), ())) == "E1204"

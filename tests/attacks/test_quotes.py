"""Quotes: what a provider sets aside for those who ask."""

from __future__ import annotations

from pathlib import Path

from tests.node.provider.provider_net import market, seeded

from fallow.wire.certificates import certify
from fallow.wire.documents import Order
from fallow.wire.messages import Declined, Quoted, RequestQuote


async def test_keys_without_money_reserve_nothing(tmp_path: Path) -> None:
    """Forty keys order all that a machine has. Gained: 0 reservations, since no account of theirs has money at the
    bank; the honest buyer gets its quote. Cost: a signature each."""
    async with market(tmp_path) as buyer:
        state, bank = buyer.seller.provider.state, buyer.services.bank_account
        now_ms = buyer.services.clock.now_ms()
        for number in range(40):
            stranger = seeded(f"stranger {number}")
            order: Order = buyer.order(requester=stranger.account, cpu_millis=2_000)
            certificate = certify(stranger.account_secret, buyer.services.identity.node, now_ms)
            address = buyer.services.rpc.address()
            answer = await buyer.ask(RequestQuote(stranger.sign(order, bank), certificate, address))
            assert isinstance(answer, Declined)
            assert answer.shortfalls[0].resource == "balance_ucr"
        assert not state.reservations
        assert isinstance(await buyer.quote(buyer.order()), Quoted)

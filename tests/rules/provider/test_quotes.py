"""Quotes and leases: what is reserved, what it costs, what is refused."""

from __future__ import annotations

import msgspec
import pytest
from tests.rules.provider.provider_play import (
    ANNA_NODE,
    BANK,
    EVE,
    EVE_NODE,
    START_MS,
    Play,
    kinds,
    lease_for,
    order,
    spec,
)

from fallow.rules.provider import events as t
from fallow.rules.provider.quotes import free_now, price_ucr
from fallow.units import GIB
from fallow.wire.documents import HostedOrder
from fallow.wire.eip712 import hash_document


def reasons(reply: t.ReplyDeclined) -> set[str]:
    return {row.resource for row in reply.shortfalls}


def test_a_quote_names_exact_cards_and_reserves_them() -> None:
    play = Play()
    reply = play.quote(order(1, gpus=1, gpu_ram_bytes=4 * GIB))
    assert (reply.quote.cards, reply.quote.expires_ms) == ("g1", START_MS + 20_000)
    assert play.quote(order(2, gpus=1, gpu_ram_bytes=4 * GIB)).quote.cards == "g0"
    assert reasons(play.quote(order(3, gpus=1))) == {"gpus"}
    play.later(20_000)
    assert isinstance(play.quote(order(4, gpus=2)), t.ReplyQuote)


def test_the_same_order_gets_the_same_quote_also_after_the_lease() -> None:
    play = Play()
    first = play.quote(order())
    play.now_ms += 5_000
    changes = play.state.changes
    assert play.quote(order()) == first
    play.propose(lease_for(order(), first.quote))
    assert play.quote(order()) == first
    assert play.state.changes == changes + 1


def test_every_reason_to_decline_is_told() -> None:
    play = Play()
    wanted = order(
        kind="render", numerics="arm", cpu_millis=9_000, gpus=3, min_stake_ucr=5, ends_ms=START_MS, max_price_ucr=1
    )
    told = reasons(play.quote(wanted))
    assert told == {"kind", "numerics", "cpu_millis", "gpus", "stake_ucr", "ends_ms"}
    assert reasons(play.quote(order(max_price_ucr=999))) == {"price_ucr"}
    assert reasons(play.quote(order(bank=b"z" * 20))) == {"bank"}
    play.put(t.OwnerReturned, "typing")
    assert "owner is active" in reasons(play.quote(order()))
    assert play.state.reservations == {}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (("80/tcp", "", 0), {"ports"}),
        (("", "any", 5), {"network", "storage_bytes"}),
        (("80/tcp", "any", 5), {"ports", "network", "storage_bytes"}),
        (("", "", 0), {"hosting"}),
    ],
)
def test_what_containers_and_services_need_is_declined_by_name_until_something_serves_it(
    wanted: tuple[str, str, int], told: set[str]
) -> None:
    play = Play()
    ports, network, storage_bytes = wanted
    plain = msgspec.structs.asdict(order())
    hosted = HostedOrder(**plain, ports=ports, network=network, storage_bytes=storage_bytes)
    assert reasons(play.quote(hosted)) == told
    assert play.state.reservations == {}
    assert hash_document(hosted, BANK) != hash_document(order(), BANK)


def test_the_price_rises_with_the_load_but_not_above_what_the_order_pays() -> None:
    play = Play()
    assert price_ucr(play.state, "echo") == 1_000
    play.open(1, cpu_millis=2_000)
    assert price_ucr(play.state, "echo") == 1_250
    assert play.quote(order(2, max_price_ucr=1_100)).quote.price_ucr == 1_100
    assert play.quote(order(3)).quote.price_ucr == 1_375


def test_free_stake_is_put_behind_a_quote_without_being_asked_for() -> None:
    play = Play(policy=t.ProviderPolicy(stake_ucr=70))
    play.put(t.LedgerStaked, 100)
    assert play.quote(order(1)).quote.stake_ucr == 70
    assert play.quote(order(2)).quote.stake_ucr == 30
    assert play.quote(order(3)).quote.stake_ucr == 0


def test_stake_is_not_promised_twice() -> None:
    play = Play(policy=t.ProviderPolicy(stake_ucr=0))
    play.put(t.LedgerStaked, 100)
    assert play.quote(order(1, min_stake_ucr=60)).quote.stake_ucr == 60
    assert reasons(play.quote(order(2, min_stake_ucr=60))) == {"stake_ucr"}


def test_a_stranger_cannot_have_resources_reserved() -> None:
    play = Play()
    assert kinds([play.quote(order(), caller=EVE_NODE)]) == ["ReplyFailure"]
    assert kinds([play.quote(order(), signer=EVE)]) == ["ReplyFailure"]
    assert play.state.reservations == {}


def test_one_requester_cannot_block_the_machine_with_quotes() -> None:
    play = Play()
    for nonce in range(8):
        assert isinstance(play.quote(order(nonce, cpu_millis=1, ram_bytes=0)), t.ReplyQuote)
    assert reasons(play.quote(order(9, cpu_millis=1, ram_bytes=0))) == {"quotes"}
    assert isinstance(play.quote(order(9, cpu_millis=1, ram_bytes=0, requester=EVE, node=EVE_NODE)), t.ReplyQuote)


@pytest.mark.parametrize(
    "change",
    [
        {"price_ucr": 1},
        {"stake_ucr": 7},
        {"kind": "train"},
        {"quote": bytes(32)},
        {"order": bytes(32)},
        {"ends_ms": START_MS + 9_999_999},
        {"ends_ms": START_MS - 1},
        {"provider": EVE},
        {"provider_node": EVE_NODE},
        {"requester": EVE},
        {"requester_node": EVE_NODE},
        {"bank": b"z" * 20},
    ],
)
def test_a_lease_for_other_terms_is_declined(change: dict[str, object]) -> None:
    play = Play()
    lease = lease_for(order(), play.quote(order()).quote)
    reply = play.propose(msgspec.structs.replace(lease, **change))
    assert isinstance(reply, t.ReplyDeclined)
    assert play.state.leases == {}
    assert isinstance(play.propose(lease), t.CountersignLease)


def test_a_lease_signed_or_sent_by_somebody_else_is_refused() -> None:
    play = Play()
    lease = lease_for(order(), play.quote(order()).quote)
    assert isinstance(play.propose(lease, signer=EVE), t.ReplyFailure)
    assert isinstance(play.propose(lease, caller=EVE_NODE), t.ReplyFailure)
    assert play.state.leases == {}


def test_one_quote_becomes_one_lease() -> None:
    play = Play()
    quote = play.quote(order()).quote
    lease = lease_for(order(), quote)
    assert play.propose(lease) == play.propose(lease)
    second = lease_for(order(), quote, starts_ms=START_MS + 1)
    assert isinstance(play.propose(second), t.ReplyDeclined)
    assert list(play.state.leases) == [hash_document(lease, BANK)]


def test_an_expired_quote_is_worth_nothing() -> None:
    play = Play()
    lease = lease_for(order(), play.quote(order()).quote)
    play.now_ms += 20_000
    assert isinstance(play.propose(lease), t.ReplyDeclined)


def test_what_a_lease_held_is_free_when_it_stops_working() -> None:
    play = Play()
    lease = play.open(cpu_millis=4_000)
    assert free_now(play.state).cpu_millis == 0
    play.put(t.PeerClosed, ANNA_NODE, lease)
    assert free_now(play.state).cpu_millis == 4_000
    play.put(t.OwnerReturned, "typing")
    assert free_now(play.state).cpu_millis == 0
    assert kinds(play.assign(lease, spec(1))) == ["ReplyFailure"]

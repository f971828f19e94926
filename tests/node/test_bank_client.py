"""How the client asks again, gives up, and tells where the money is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from tests.ledger_world import ALICE, BANK, PROVIDER, Dice, Person, claim, lease_of, voucher, word

from fallow.errors import FallowError, PeerFault, UnavailableError, fail
from fallow.node.bank_client import BankClient
from fallow.ports import ONCE, Patience
from fallow.wire.claims import accounts_hash
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Settlement
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import (
    DrawOf,
    LedgerDone,
    LedgerRefused,
    Refusal,
    SettlementOf,
)
from fallow.wire.messages import Message, NodeAddress, Ok

ADDRESS = NodeAddress(word("bank node"))
LEASE = lease_of()


class TurningClock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return round(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Line:
    """A telephone line to a bank that follows a script."""

    def __init__(self, clock: TurningClock, answer: Callable[[int, Message], Message]) -> None:
        self.clock, self.answer = clock, answer
        self.heard: list[Message] = []
        self.timeouts: list[float] = []

    async def call(self, address: NodeAddress, request: Message, timeout_s: float = 10.0) -> Message:
        assert address == ADDRESS
        self.heard.append(request)
        self.timeouts.append(timeout_s)
        return self.answer(len(self.heard), request)


def client_of(answer: Callable[[int, Message], Message], total_s: float = 30.0) -> tuple[BankClient, Line]:
    clock = TurningClock()
    line = Line(clock, answer)
    return BankClient(line, ADDRESS, BANK.account, clock, Dice(), Patience(total_s, 4.0)), line


def done_at(number: int) -> Callable[[int, Message], Message]:
    def answer(count: int, request: Message) -> Message:
        if count < number:
            raise fail("E1801", "nobody there")
        return LedgerDone(getattr(request, "operation", word("lease")))

    return answer


def test_it_asks_again_with_the_same_operation() -> None:
    client, line = client_of(done_at(6))
    asyncio.run(client.transfer(ALICE.account, 5))
    assert len(line.heard) == 6
    assert len(set(line.heard)) == 1
    assert all(timeout <= 4.0 for timeout in line.timeouts)


def test_waits_grow_are_jittered_and_bounded() -> None:
    client, line = client_of(done_at(12), total_s=100)
    asyncio.run(client.deposit(5))
    bases = [0.1, 0.2, 0.4, 0.8, 1.6] + [Patience().most_wait_s] * 6
    assert all(base / 2 <= slept < base for base, slept in zip(bases, line.clock.slept, strict=True))
    assert len(set(line.clock.slept[5:])) > 1


def test_it_gives_up_in_time_and_says_that_asking_again_is_safe() -> None:
    client, line = client_of(done_at(10_000), total_s=7)
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(client.unbond(5))
    assert "never moves money twice" in caught.value.money
    assert caught.value.code == "E1801"
    assert line.clock.now_s <= 7
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(client.balance(ALICE.account))
    assert caught.value.money == "Nothing was spent."


def test_operations_are_drawn_anew_unless_given() -> None:
    client, line = client_of(done_at(1))
    for _ in range(2):
        asyncio.run(client.transfer(ALICE.account, 5))
    asyncio.run(client.transfer(ALICE.account, 5, word("mine")))
    operations = [getattr(request, "operation", b"") for request in line.heard]
    assert len(set(operations)) == 3
    assert operations[2] == word("mine")


def test_refusals_are_not_asked_again() -> None:
    client, line = client_of(lambda _, request: LedgerRefused(word("x"), Refusal.OVER_CAP))
    with pytest.raises(FallowError) as caught:
        asyncio.run(client.redeem(voucher(LEASE, 5)))
    assert caught.value.code == "E1303"
    assert len(line.heard) == 1


def test_other_errors_pass_through() -> None:
    def answer(_: int, request: Message) -> Message:
        raise fail("E1102", "nonsense")

    client, line = client_of(answer)
    with pytest.raises(PeerFault):
        asyncio.run(client.books())
    assert len(line.heard) == 1


def test_an_answer_of_the_wrong_kind_is_the_banks_fault() -> None:
    client, _ = client_of(lambda _, request: Ok())
    with pytest.raises(PeerFault, match="Ok"):
        asyncio.run(client.draw(claim(LEASE)))


def test_draws_come_back() -> None:
    asked = claim(LEASE)
    draw = AuditDraw(hash_document(decode(ClaimRoot, asked.body), BANK.account), word("seed"), accounts_hash(()))
    client, _ = client_of(lambda _, request: DrawOf(BANK.sign(draw)))
    assert asyncio.run(client.draw(asked)).said == draw


@pytest.mark.parametrize("signer", [BANK, PROVIDER])
def test_a_draw_for_another_claim_or_by_somebody_else_is_none(signer: Person) -> None:
    """What is kept for receipts must be what strangers will believe."""
    of = word("another") if signer is BANK else hash_document(decode(ClaimRoot, claim(LEASE).body), BANK.account)
    client, _ = client_of(lambda _, request: DrawOf(signer.sign(AuditDraw(of, word("seed"), accounts_hash(())))))
    with pytest.raises(PeerFault):
        asyncio.run(client.draw(claim(LEASE)))


def test_accounts_that_the_bank_did_not_sign_for_were_not_drawn() -> None:
    draw = AuditDraw(hash_document(decode(ClaimRoot, claim(LEASE).body), BANK.account), word("s"), accounts_hash(()))
    client, _ = client_of(lambda _, request: DrawOf(BANK.sign(draw), (PROVIDER.account,)))
    with pytest.raises(PeerFault):
        asyncio.run(client.draw(claim(LEASE)))


def test_who_asks_once_hears_the_first_error_and_gives_a_try_its_time() -> None:
    clock = TurningClock()
    line = Line(clock, done_at(2))
    client = BankClient(line, ADDRESS, BANK.account, clock, Dice(), ONCE)
    with pytest.raises(UnavailableError):
        asyncio.run(client.deposit(5))
    assert line.timeouts == [ONCE.call_s]
    asyncio.run(client.deposit(5))
    assert clock.slept == []


def test_a_word_on_another_lease_or_by_another_bank_is_the_banks_fault() -> None:
    said = Settlement(word("another"), 0, 0, 0, 0)
    for signed in (BANK.sign(said), ALICE.sign(msgspec.structs.replace(said, lease=word("this")))):
        client, _ = client_of(lambda _, request, signed=signed: SettlementOf(signed))
        with pytest.raises(PeerFault):
            asyncio.run(client.standing(word("this")))

"""Every registered check says what it is, and every cheat of the gallery meets what it promises."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, honest_crowd, lane_spec, lie

from fallow.rules.steward import events as t
from fallow.rules.steward.check import ONCE_PPM
from fallow.rules.steward.checks.registry import CHECKS, Check, parse
from fallow.wire.local import CHECKED, UNCHECKED


@dataclass
class Patient:
    """Works honestly until it is trusted, then lies."""

    honest: int
    seen: int = 0

    def __call__(self, spec: object, honest: object) -> object:
        self.seen += 1
        return honest if self.seen <= self.honest else lie()(spec, honest)  # pyright: ignore[reportArgumentType]


def providers(cheat: str) -> list[Provider]:
    """A crowd in which a minority cheats in one way."""
    good = honest_crowd(5)
    match cheat:
        case "a wrong answer":
            return [Provider("c", answer=lie(), price=900), *good]
        case "colluders":
            return [Provider("c", answer=lie("us"), price=900), Provider("d", answer=lie("us"), price=900), *good]
        case "a false accuser":
            return [*good, Provider("c", answer=lie(), price=1001)]
        case "withheld data":
            return [Provider("c", answer=lambda spec, honest: None, price=900), *good]
        case _:
            return [Provider("c", answer=Patient(6), price=900), *good]  # pyright: ignore[reportArgumentType]


CHEATS = ("a wrong answer", "colluders", "a false accuser", "withheld data", "patience")
FULL = {"audit": "audit:rate=1,quorum=3"}
"""The settings with which a check promises that no lie is paid while cheats are a minority, for those that can."""


@pytest.mark.parametrize("name", sorted(CHECKS))
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_minority_of_cheats_gets_what_the_check_promises(name: str, cheat: str) -> None:
    crowd = Crowd(providers(cheat))
    job = crowd.submit(batch_spec(16, 6, verify=FULL.get(name, name)))
    crowd.run()
    for _ in range(12):
        crowd.pass_time(60_000)
    crowd.pass_time(7_200_000)
    assert crowd.state.jobs[job].over
    honest = {provider.account for provider in crowd.providers if provider.name not in ("c", "d")}
    assert not any(crowd.state.standing(account).banned for account in honest), "no honest account suffers"
    kept = crowd.of(t.KeepReceipt)
    assert len(kept) == len({(receipt.lease, receipt.claim_hash) for receipt in kept}), "nothing is paid twice"
    if name not in FULL:
        assert CHECKS[name].proves.startswith("nothing"), "who promises nothing says so"
        return
    lies = {account for account in (word.account for word in crowd.providers) if account not in honest}
    assert all(receipt.output is not None for receipt in kept)
    wrong = [r for r in kept if r.terms.provider in lies and r.check in ("checked", "cleared") and is_lie(crowd, r)]
    assert not wrong, "no lie is paid"


def is_lie(crowd: Crowd, receipt: t.KeepReceipt) -> bool:
    from tests.rules.steward.crowd import honest_output

    return receipt.spec is not None and receipt.output != honest_output(receipt.spec)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_claim_told_again_and_a_second_root_over_the_same_answers_are_paid_once(name: str) -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(lane_spec(verify=name))
    crowd.run()
    seat = crowd.state.jobs[job].seats[0]
    first = crowd.lane_claim(seat.lease, 1, 1, 4, 40)
    for event in (first, first, crowd.lane_claim(seat.lease, 2, 1, 4, 40), crowd.lane_claim(seat.lease, 3, 3, 2, 20)):
        crowd.tell(event)
    crowd.run()
    assert seat.units_claimed == 40
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    crowd.run()
    crowd.pass_time(7_200_000)
    assert sum(receipt.units for receipt in crowd.of(t.KeepReceipt)) <= 40


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_check_says_what_it_is(name: str) -> None:
    check = CHECKS[name]
    assert check.name == name
    assert check.proves
    assert check.leaves_open
    found = parse(name)
    assert isinstance(found, Check)
    assert found.least_seats() >= 1
    assert found.executions_ppm(batch_spec(10), 3) >= ONCE_PPM


def test_the_ways_that_are_taken_when_nobody_says_are_there() -> None:
    assert {CHECKED, UNCHECKED} <= set(CHECKS)

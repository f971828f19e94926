"""One answer for the estimate, the orders and the explanation."""

from __future__ import annotations

import msgspec
from tests.rules.test_market import BANK, BATCH, SERVE, offer

from fallow.rules.steward.checks.registry import Check, parse
from fallow.rules.steward.estimate import estimate
from fallow.rules.steward.events import AskQuote, OffersGathered, StewardIdentity, UserSubmitted
from fallow.rules.steward.machine import State, transition
from fallow.rules.steward.terms import same_everywhere, terms_of, wanted_seats


def test_whoever_the_orders_go_to_fits_the_estimate_and_nobody_else() -> None:
    """Three unlike machines: an echo is the same on all of them; of work that is not, two of a kind make a class."""
    unlike = [offer(1, numerics="x86"), offer(2, numerics="arm"), offer(3, numerics="riscv")]
    alike = [*unlike, offer(4, numerics="arm")]
    for workload, offers, fits in (("echo", unlike, 3), ("train", unlike, 3), ("train", alike, 2), ("echo", alike, 4)):
        work = msgspec.structs.replace(BATCH.work, workload=workload)  # pyright: ignore[reportArgumentType]
        spec = msgspec.structs.replace(BATCH, work=work, verify="audit")
        found = estimate(spec, BANK, offers, 2_000)
        assert sum(not one.shortfalls.shortfalls for one in found.candidates) == fits
        state = State(StewardIdentity(b"a" * 20, b"n" * 32, BANK))
        transition(state, UserSubmitted(2_000, b"j" * 32, spec))
        asked = [
            e for e in transition(state, OffersGathered(2_000, b"j" * 32, tuple(offers))) if isinstance(e, AskQuote)
        ]
        fitting = {one.node for one in found.candidates if not one.shortfalls.shortfalls}
        assert {effect.order.numerics for effect in asked} == ({"arm"} if fits == 2 else {""})
        assert {effect.peer.node for effect in asked} == fitting


def check(text: str) -> Check:
    found = parse(text)
    assert isinstance(found, Check)
    return found


def test_whoever_checks_is_hired_too() -> None:
    assert wanted_seats(BATCH, check("none")) < wanted_seats(BATCH, check("audit:quorum=3")) == 4
    assert wanted_seats(SERVE, check("none")) == 2
    assert same_everywhere(BATCH)
    assert not same_everywhere(SERVE)
    assert check("none").executions_ppm(BATCH, 3) == 1_000_000 < check("audit").executions_ppm(BATCH, 3)


def test_nobody_fits_when_nobody_is_there() -> None:
    found = terms_of(BATCH, check("none"), BANK, [], 2_000)
    assert (found.fitting, found.lacks, found.low_ucr, found.high_ucr) == ((), (), 0, 0)

from __future__ import annotations

from fallow.sim.cheats import GALLERY
from fallow.sim.plan import KINDS, draw

PLANS = [draw(seed) for seed in range(400)]


def test_a_seed_has_one_plan() -> None:
    assert [draw(seed) for seed in range(20)] == PLANS[:20]
    assert len({repr(plan) for plan in PLANS}) == len(PLANS)


def test_an_honest_quorum_is_always_there() -> None:
    """What the trust policy does not promise to withstand is not asked of it: `quorum` colluders drawn together."""
    for plan in PLANS:
        honest = {p.account for p in plan.providers if p.way == "honest"}
        lies: dict[str, set[str]] = {}
        for provider in plan.providers:
            if provider.way != "honest":
                lies.setdefault(provider.salt, set()).add(provider.account)
        together = max((len(accounts) for accounts in lies.values()), default=0)
        for job in plan.jobs:
            quorum = 3 if "quorum=3" in job.spec.verify else 2
            assert together < quorum or job.spec.verify == "none"
            assert len(honest) > quorum


def test_every_cheat_and_every_fault_turns_up() -> None:
    assert {name for plan in PLANS for name in plan.cheats} == set(GALLERY)
    assert {"sybil", "collude"} <= {provider.salt for plan in PLANS for provider in plan.providers}
    kinds = {happening.kind for plan in PLANS for happening in plan.happenings}
    assert kinds == {"crash", "kill", *KINDS}
    assert {type(job.spec.work).__name__ for plan in PLANS for job in plan.jobs} == {"TrainJob", "BatchJob", "LaneJob"}
    assert any(plan.accuses for plan in PLANS)
    assert any(not plan.cheats and not plan.happenings for plan in PLANS)


def test_faults_end_before_it_is_calm() -> None:
    for plan in PLANS:
        assert all(happening.at_ms < plan.calm_ms for happening in plan.happenings)


def test_lanes_are_always_ended_by_somebody() -> None:
    for plan in PLANS:
        assert all(job.cancel_ms for job in plan.jobs if job.lane_tasks)

"""Audits that somebody tries to dodge or to buy. Each test says what is tried, what the attacker gained, and what it
cost it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.rules.steward.crowd import Crowd, Provider, exact_spec, honest_crowd, of_round, train_spec

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import view
from fallow.rules.steward.state import Fate
from fallow.wire.local import JobSpec
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

Answer = Callable[[TaskSpec, TaskOutput], TaskOutput | None]


def settle(crowd: Crowd, times: int = 5) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def with_update(output: TaskOutput, update: Part) -> TaskOutput:
    parts = tuple(update if part.name == "update" else part for part in output.parts)
    return TaskOutput(output.value, parts)


def copied_update(providers: list[Provider], copier: Provider) -> list[int]:
    """The copier shows the update that another shard of its round gave, as soon as it has seen one; -> the units of
    what it did itself."""
    seen: dict[int, Part] = {}
    worked: list[int] = []

    def honest(spec: TaskSpec, output: TaskOutput) -> TaskOutput:
        seen.update({len(seen): part for part in output.parts if part.name == "update"})
        return output

    def copy(spec: TaskSpec, output: TaskOutput) -> TaskOutput:
        if any(part.name == "update" for part in output.parts) and seen:
            return with_update(output, seen[len(seen) - 1])
        worked.append(spec.units)
        return output

    for provider in providers:
        provider.answer = copy if provider is copier else honest
    return worked


@pytest.mark.parametrize("spec", [train_spec(3, 4, verify="none"), train_spec(3, 4), exact_spec(3, 4)])
def test_a_copied_update_is_refused_at_once_and_the_job_goes_on(spec: JobSpec) -> None:
    """Tried: hand in the update that another shard has just shown, instead of training. Gained: 0. Cost: each copy is
    refused and held against the copier, which gets no more work after a few; the job finishes with all its rounds."""
    providers = honest_crowd(4)
    copier = providers[-1]
    copier.speed = 1_000  # it is preferred wherever it can be
    worked = copied_update(providers, copier)
    crowd = Crowd(providers)
    job = crowd.submit(spec)
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    shown = view(crowd.state, job)
    assert shown is not None
    assert [one.updates for one in shown.rounds] == [3, 3, 3, 3, 0]
    runs = [run for slot in crowd.state.jobs[job].slots if of_round(slot) for run in slot.runs if run.output is not None]
    final = [(part.blob, run.task) for run in runs if run.fate is Fate.FINAL and run.output for part in run.output.parts]
    assert all(blob != other or task == its for blob, task in final for other, its in final)
    assert crowd.paid_to(copier) <= sum(worked)
    told = [note for note in crowd.of(t.Note) if note.node == copier.address.node and "copy" in note.text]
    assert told


def test_shards_that_honestly_give_the_same_are_believed_after_a_check() -> None:
    """No attack: data so small that two shards train on the same text give one update. Two accounts say so of the same
    shard, and then it is checked, not refused."""
    same = Part("update", b"u" * 32, 100)
    providers = honest_crowd(6)
    for provider in providers:
        provider.answer = lambda spec, output: with_update(output, same)
    crowd = Crowd(providers)
    job = crowd.submit(train_spec(2, 1))
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    assert not crowd.notes("caught")

"""Training as others see it: units, claims, links."""

from __future__ import annotations

import msgspec
import pytest
from tests.kinds.train.test_trace import claimed, recipe, round_spec, word

from fallow.errors import FallowError
from fallow.kinds.registry import kind_named
from fallow.kinds.rounds import RoundManifest, RoundPart
from fallow.kinds.train.tasks import TrainAudit, TrainFinish, TrainParams, TrainRound
from fallow.kinds.train.trace import Cut
from fallow.wire.codec import decode, encode
from fallow.wire.local import TrainJob
from fallow.wire.tasks import Recipe, TaskOutput, TaskSpec

KIND = kind_named("train")
ROUNDS = KIND.rounds
assert ROUNDS is not None
WORK = TrainJob(word("model"), word("data"), recipe(), 77)
MANIFESTS = (RoundManifest(0, (word("u"),)),)


def test_rounds_and_the_finish_are_metered_as_both_sides_reckon() -> None:
    assert ROUNDS is not None
    for evaluate in (False, True):
        place = RoundPart(2, 1, 2, MANIFESTS, evaluate, checkpoint=False)
        params = ROUNDS.round(WORK, place)
        assert decode(TrainParams, params) == TrainRound(WORK.recipe, 2, 1, 2, MANIFESTS, evaluate, False)
        assert KIND.units(params) == ROUNDS.round_units(WORK, evaluate=evaluate)
    params = ROUNDS.finish(WORK, MANIFESTS)
    assert decode(TrainParams, params) == TrainFinish(WORK.recipe, MANIFESTS)
    assert KIND.units(params) == ROUNDS.finish_units(WORK)
    blind = msgspec.structs.replace(WORK, recipe=Recipe("lora", holdout_sequences=0))
    assert ROUNDS.finish_units(blind) == 1


def test_only_exact_work_is_a_chain() -> None:
    fp32 = msgspec.structs.replace(WORK, recipe=msgspec.structs.replace(WORK.recipe, arithmetic="fp32"))
    assert KIND.exact(WORK)
    assert KIND.chain(WORK) is not None
    assert not KIND.exact(fp32)
    assert KIND.chain(fp32) is None


def test_a_check_costs_what_it_does_again() -> None:
    chain = KIND.chain(WORK)
    assert chain is not None
    spec, params = round_spec(WORK.recipe)
    output = claimed(params.recipe.inner_steps, Cut(2, 1))
    assert chain.links(spec, output) == 8
    drawn = chain.check(spec, output, (1, 4))
    assert chain.drawn(drawn.task) == (1, 4)
    assert drawn.task.units == KIND.units(drawn.task.params)
    assert all(part in output.parts for part in chain.states(drawn.task))
    assert KIND.well_formed(drawn.task, drawn.expected)
    assert 0 < chain.check_ppm(WORK, 2) <= 1_000_000


@pytest.mark.parametrize(
    ("units", "every", "links", "steps"),
    [
        (1, 0, (0,), 4), (0, 1, (0,), 4), (2, 2, (0,), 4), (9, 1, (0,), 4), (1, 1, (4,), 4), (1, 1, (), 0),
        (1, 1, (0,), (1 << 63) - 1), (1, 1, (1 << 62,), 1 << 62), (1, 4, (0,), 1 << 40),
    ],
)  # fmt: skip
def test_an_audit_of_what_nobody_can_have_cut_is_refused_at_once(
    units: int, every: int, links: tuple[int, ...], steps: int
) -> None:
    """Whoever holds a lease may send one; a provider reckons what it is worth before anything is done."""
    round_ = TrainRound(recipe(steps), 0, 0, 1, (), evaluate=False, checkpoint=False)
    with pytest.raises(FallowError) as refused:
        KIND.units(encode(TrainAudit(round_, units, every, links)))
    assert refused.value.code == "E1707"


def test_what_is_no_round_has_no_links() -> None:
    chain = KIND.chain(WORK)
    assert chain is not None
    spec, _ = round_spec(WORK.recipe)
    assert chain.links(spec, TaskOutput(b"", ())) == 0
    assert chain.links(msgspec.structs.replace(spec, params=b"nonsense"), claimed(4, Cut(2, 1))) == 0


def test_training_is_no_line_of_text() -> None:
    with pytest.raises(FallowError) as refused:
        KIND.read("hello", {})
    assert refused.value.code == "E2001"


def test_only_rounds_in_exact_arithmetic_keep_states() -> None:
    spec, _ = round_spec(WORK.recipe)
    assert KIND.kept_bytes(spec) > 0
    assert KIND.kept_bytes(TaskSpec("train", b"nonsense", (), 0, 1, 1, 1)) == 0

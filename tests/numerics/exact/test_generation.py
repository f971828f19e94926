from __future__ import annotations

import pytest
from tests.numerics.exact.small_llama import small_llama, some_tokens

from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.generation import GrowingText, Sampling, advance, generate, replay
from fallow.numerics.exact.llama import ExactLlama

GREEDY = Sampling()
DRAWN = Sampling(temperature=0.9, top_p=0.9, top_k=40, seed=77)


def prompt(length: int, seed: int = 5) -> list[int]:
    return some_tokens(1, length, seed)[0].tolist()


def answer(model: ExactLlama, tokens: list[int], sampling: Sampling, count: int = 12) -> GrowingText:
    text = GrowingText(list(tokens), sampling)
    generate(model, [text], count, mark=True)
    return text


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_company_cuts_resuming_and_replay_change_nothing(sampling: Sampling) -> None:
    model = exactify(small_llama())
    start = prompt(20)
    alone = answer(model, start, sampling)

    crowd = [GrowingText(prompt(n, n), DRAWN) for n in (3, 30)] + [GrowingText(list(start), sampling)]
    generate(model, crowd, 12, mark=True)
    assert crowd[2].tokens == alone.tokens
    assert crowd[2].logits_hash() == alone.logits_hash()

    cut = GrowingText(list(start), sampling)
    while cut.made < 12:
        advance(model, [cut], piece_tokens=3, mark=True)
    assert (cut.tokens, cut.marks) == (alone.tokens, alone.marks)

    resumed = answer(model, alone.tokens[:25], sampling, 7)
    assert resumed.tokens == alone.tokens
    assert resumed.marks == alone.marks[5:]

    chosen, marks = replay(model, alone.tokens, 20, sampling)
    assert chosen == alone.tokens[20:]
    assert marks == alone.marks


def test_another_seed_or_place_draws_otherwise() -> None:
    model = exactify(small_llama())
    start = prompt(10)
    drawn = answer(model, start, DRAWN)
    assert answer(model, start, Sampling(0.9, 0.9, 40, seed=78)).tokens != drawn.tokens
    assert answer(model, start, Sampling(0.9, 0.9, 40, seed=77)).tokens == drawn.tokens


def test_a_changed_token_or_weight_is_seen_by_replay() -> None:
    model = exactify(small_llama())
    text = answer(model, prompt(10), GREEDY)
    forged = list(text.tokens)
    forged[14] = (forged[14] + 1) % 96
    chosen, marks = replay(model, forged, 10, GREEDY)
    assert chosen[4] != forged[14]
    assert marks[:5] == text.marks[:5]
    assert marks[5:] != text.marks[5:]
    assert replay(exactify(small_llama(seed=2)), text.tokens, 10, GREEDY)[1][0] != text.marks[0]


def test_an_end_token_ends_and_limits_hold() -> None:
    model = exactify(small_llama())
    free = answer(model, prompt(6), GREEDY)
    end = free.tokens[8]
    text = GrowingText(prompt(6), GREEDY)
    generate(model, [text], 12, frozenset([end]))
    assert text.tokens == free.tokens[: free.tokens.index(end, 6) + 1]
    none = GrowingText(prompt(6), GREEDY)
    generate(model, [none], 0)
    assert none.made == 0

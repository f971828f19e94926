from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fallow.numerics.exact import native, routes
from fallow.numerics.exact.attention import Heads, attend, by_key_head, by_token, span
from fallow.numerics.exact.cache import Cache, attend_next
from fallow.numerics.exact.format import Grid, quantise

CPU = torch.device("cpu")
HEADS = [Heads(4, 2, 16), Heads(9, 3, 64), Heads(3, 3, 7), Heads(8, 1, 40, window=11), Heads(2, 1, 128, window=70)]


def turned(heads: Heads, tokens: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one text; a key that outweighs the rest leaves stretches of weights that are 0."""
    generator = torch.Generator().manual_seed(seed)
    counts = (heads.queries, heads.keys, heads.keys)
    q, k, v = (torch.randn(1, tokens, count, heads.size, generator=generator) for count in counts)
    q[:, 1::3] *= 40
    k[:, :1] *= 3
    v[:, 5:6] = 0
    return q, k, v


def part(text: tuple[Tensor, Tensor, Tensor], start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = text
    return q[:, start:stop], k[:, start:stop], v[:, start:stop]


def whole(heads: Heads, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Without a cache."""
    keys, values = (quantise(x.transpose(1, 2).contiguous()) for x in (k, v))
    seen = span(heads, q.shape[1], 0, CPU)
    return by_token(heads, attend(heads, quantise(by_key_head(heads, q)), keys, values, seen)[0])


def in_pieces(heads: Heads, texts: list[tuple[Tensor, Tensor, Tensor]], cuts: list[list[int]]) -> list[Tensor]:
    """Each text in its own pieces, a piece of all of them at a time."""
    caches = [Cache(heads, CPU) for _ in texts]
    mixed: list[list[Tensor]] = [[] for _ in texts]
    for counts in zip(*cuts, strict=True):
        parts = [
            [x[:, cache.length : cache.length + count] for x in text]
            for text, cache, count in zip(texts, caches, counts, strict=True)
        ]
        q, k, v = (torch.cat([part[at] for part in parts], 1) for at in range(3))
        found = attend_next(heads, q, k, v, list(zip(caches, counts, strict=True)))
        for one, row in zip(mixed, found.split(list(counts), 1), strict=True):
            one.append(row)
    return [torch.cat(one, 1) for one in mixed]


@pytest.mark.parametrize("name", native.ISAS)
@pytest.mark.parametrize("heads", HEADS)
def test_pieces_company_and_packing_change_no_bit(heads: Heads, name: str) -> None:
    first, second = turned(heads, 150, 1), turned(heads, 71, 2)
    cuts = [[100, 1, 1, 1, 46, 1], [1, 1, 33, 1, 1, 34]]
    with native.isa(name):
        found = in_pieces(heads, [first, second], cuts)
        assert [len(one[0]) for one in found] == [150, 71]
        for one, text in zip(found, (first, second), strict=True):
            assert torch.equal(one, whole(heads, *text))


def test_without_compiled_kernels_it_is_the_same() -> None:
    heads = HEADS[1]
    texts = [turned(heads, 90, 3), turned(heads, 40, 4)]
    cuts = [[70, 1, 19], [20, 1, 19]]
    packed = in_pieces(heads, texts, cuts)
    with routes.use("fp64"):
        plain = in_pieces(heads, texts, cuts)
    assert all(torch.equal(one, other) for one, other in zip(packed, plain, strict=True))


def test_threads_change_no_bit() -> None:
    heads, count = HEADS[1], torch.get_num_threads()
    text = turned(heads, 400, 5)
    try:
        torch.set_num_threads(1)
        one = in_pieces(heads, [text], [[300, 99, 1]])
        torch.set_num_threads(2)
        assert torch.equal(in_pieces(heads, [text], [[300, 99, 1]])[0], one[0])
    finally:
        torch.set_num_threads(count)


def test_grids_grow() -> None:
    with routes.use("fp64"):
        cache = Cache(Heads(2, 1, 4), CPU)
    grid = quantise(torch.randn(1, 1, 200, 4))

    def piece(start: int, stop: int) -> Grid:
        return Grid(grid.q[:, :, start:stop], grid.step[:, :, start:stop])

    keys = values = piece(0, 0)
    for start in range(0, 200, 40):
        keys, values = cache.append(piece(start, start + 40), piece(start, start + 40))
    assert torch.equal(keys.q, grid.q)
    assert torch.equal(values.step, grid.step)


def test_room_is_counted_as_it_is_taken() -> None:
    heads, cache = HEADS[1], Cache(HEADS[1], CPU)
    attend_next(heads, *turned(heads, 65, 8), [(cache, 65)])
    assert cache.kept is not None
    held = (cache.kept.keys, cache.kept.key_steps, cache.kept.values, cache.kept.value_steps)
    assert sum(x.numel() * x.element_size() for x in held) <= 65 * Cache.token_bytes(heads)


def test_tokens_that_do_not_fit_the_cache_are_refused() -> None:
    kernels = native.kernels()
    assert kernels is not None
    cache, text = Cache(HEADS[0], CPU), turned(HEADS[0], 3, 9)
    with pytest.raises(ValueError, match="text"):
        kernels.attend([(cache.reserve(3), 100, 3)], text, (2, 2, 16), 0, 1.0, native.cap())
    with pytest.raises(ValueError, match="turned"):
        kernels.attend([(cache.reserve(2), 0, 2)], text, (2, 2, 16), 0, 1.0, native.cap())

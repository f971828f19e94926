from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fallow.numerics.compress import BLOCK, MAX_MAGNITUDE, TOP, pack, products, read_update, unpack, write_update


def some_values(count: int, seed: int = 1, scale: float = 1e-3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * scale).astype(np.float32)


@given(count=st.integers(0, 3 * BLOCK), seed=st.integers(0, 99), scale=st.sampled_from([1e-30, 1e-6, 1.0, 200.0]))
def test_the_error_is_at_most_half_a_step_of_its_block(count: int, seed: int, scale: float) -> None:
    values = some_values(count, seed, scale)
    packed = pack(values)
    allowed = np.repeat(packed.scales, BLOCK)[:count] * 0.5001 + 1e-38
    assert (np.abs(unpack(packed) - values) <= allowed).all()
    assert packed.scales.size == -(-count // BLOCK)


def test_blocks_do_not_disturb_each_other_and_zero_stays_zero() -> None:
    values = np.zeros(2 * BLOCK, dtype=np.float32)
    values[0] = 100.0
    values[BLOCK:] = some_values(BLOCK)
    packed = pack(values)
    assert (unpack(packed)[1:BLOCK] == 0).all()
    assert (packed.codes[BLOCK:] == pack(values[BLOCK:]).codes).all()
    assert packed.codes.max() == TOP


def test_products_are_exact() -> None:
    packed = pack(some_values(1000))
    exact = [int(code) * float(packed.scales[0]) for code in packed.codes]
    assert products(packed).tolist() == exact


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, MAX_MAGNITUDE * 1.1])
def test_values_that_blew_up_are_refused(bad: float) -> None:
    values = some_values(10)
    values[3] = bad
    with pytest.raises(ValueError, match="not finite, or too large"):
        pack(values)


SHAPES = {"b": (3, 5), "a": (BLOCK + 7,)}


def write_some(path: Path) -> Path:
    write_update(path, {name: pack(some_values(int(np.prod(s))).reshape(s)) for name, s in SHAPES.items()})
    return path


def test_a_file_comes_back_and_is_ordinary_safetensors(tmp_path: Path) -> None:
    path = write_some(tmp_path / "update")
    found = read_update(path, SHAPES)
    assert found is not None
    assert {name: packed.codes.shape for name, packed in found.items()} == SHAPES
    plain = load_file(path)
    assert sorted(plain) == ["a", "a#scale", "b", "b#scale"]
    assert (plain["a"] == found["a"].codes).all()
    assert write_some(tmp_path / "again").read_bytes() == path.read_bytes()


@given(st.data())
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever a peer writes: a well-formed update or None, never an exception, never memory without bound."""
    path = tmp_path_factory.mktemp("hostile") / "update"
    good = bytearray(write_some(path).read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "noise", "header"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del good[data.draw(st.integers(0, len(good) - 1)) :]
    elif how == "grow":
        good += data.draw(st.binary(min_size=1, max_size=64))
    elif how == "noise":
        good = bytearray(data.draw(st.binary(max_size=256)))
    else:
        good[:8] = data.draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, (1 << 40).to_bytes(8, "little")]))
    path.write_bytes(good)
    found = read_update(path, SHAPES)
    if how != "flip":
        assert found is None
    elif found is not None:
        assert all(np.isfinite(products(packed)).all() for packed in found.values())


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, 1e30])
def test_a_hostile_scale_is_refused(tmp_path: Path, scale: float) -> None:
    update = {name: pack(some_values(int(np.prod(s))).reshape(s)) for name, s in SHAPES.items()}
    update["a"].scales[1] = scale
    write_update(tmp_path / "update", update)
    assert read_update(tmp_path / "update", SHAPES) is None


def test_the_largest_allowed_update_is_accepted(tmp_path: Path) -> None:
    write_update(tmp_path / "update", {"a": pack(np.full(9, MAX_MAGNITUDE, dtype=np.float32))})
    assert read_update(tmp_path / "update", {"a": (9,)}) is not None

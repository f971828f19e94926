from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fallow.numerics.layout import layout, read, write

PLAN = layout({"codes": ("I8", (3,)), "wide": ("F32", (2, 2)), "step": ("I64", (1,)), "none": ("F32", (0,))}, "test 1")
TENSORS = {
    "codes": np.asarray([1, -2, 3], dtype=np.int8),
    "wide": np.asarray([[1, 2], [3, 4]], dtype=np.float32),
    "step": np.asarray([7], dtype=np.int64),
    "none": np.zeros(0, dtype=np.float32),
}


def test_what_is_written_is_read_by_us_and_by_safetensors(tmp_path: Path) -> None:
    write(tmp_path / "file", PLAN, TENSORS)
    assert (tmp_path / "file").stat().st_size == PLAN.size_bytes
    ours, theirs = read(tmp_path / "file", PLAN), load_file(tmp_path / "file")
    assert ours is not None
    for name, value in TENSORS.items():
        assert ours[name].dtype == value.dtype
        assert (ours[name] == value).all()
        assert (theirs[name] == value).all()


def test_the_order_of_the_tensors_makes_no_difference() -> None:
    turned = layout(
        {"none": ("F32", (0,)), "wide": ("F32", (2, 2)), "step": ("I64", (1,)), "codes": ("I8", (3,))}, "test 1"
    )
    assert turned == PLAN


def test_another_kind_of_file_is_none(tmp_path: Path) -> None:
    write(tmp_path / "file", layout({"codes": ("I8", (3,))}, "other 1"), TENSORS)
    assert read(tmp_path / "file", layout({"codes": ("I8", (3,))}, "test 1")) is None
    assert read(tmp_path / "file", layout({"codes": ("I8", (3,))}, "other 1")) is not None


def test_a_file_without_tensors(tmp_path: Path) -> None:
    write(tmp_path / "file", layout({}, "test 1"), {})
    assert read(tmp_path / "file", layout({}, "test 1")) == {}


def test_a_tensor_of_another_shape_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not \\(3,\\)"):
        write(tmp_path / "file", PLAN, TENSORS | {"codes": np.zeros(4, dtype=np.int8)})

"""Writes docs/spec/vectors/product.json: `python -m tests.numerics.exact.make_vectors`.

The outputs are this implementation's (FP64 route); `test_vectors.py` holds them against the plain-Python reference.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import product, routes
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.linear import Affine, Weight

PATH = Path(__file__).resolve().parents[3] / "docs" / "spec" / "vectors" / "product.json"
ABOUT = (
    "Vectors for sections 3.1 to 3.4 and 3.6 of exact-arithmetic.md. Binary32 numbers are the 8 hexadecimal digits of "
    "their bits, every NaN as 7fc00000; integers are JSON integers. Matrices are lists of rows."
)


def hexed(value: Any) -> Any:
    """Binary32 tensors as nested lists of their bits."""
    if isinstance(value, torch.Tensor):
        return hexed(value.tolist())
    if isinstance(value, list):
        return [hexed(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return "7fc00000" if value != value else struct.pack(">f", value).hex()


def floats(*rows: list[float]) -> torch.Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))


def normal(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))


def edges() -> list[list[float]]:
    """Rows where the rule of 3.1 turns."""
    above = float(np.nextafter(np.float32(8127), np.float32(9000)))
    least, inf, nan = 2.0**-149, float("inf"), float("nan")
    rows = [
        [0.0, 0.0, 0.0, 0.0],
        [-0.0, 0.0, -0.0, 0.0],
        [8127.0, 1.0, 0.5, -0.5],
        [above, 1.0, 0.5, -0.5],
        [-above, 1.5, 2.5, -2.5],
        [4096.0, 4095.9998, 0.49999997, 0.5],
        [1.0, 2.0**-12, 2.0**-13, 3 * 2.0**-14],
        [2.0**127, 1.0, -(2.0**126), 2.0**110],
        [3.4028234663852886e38, 1, 2, 3],
        [8127 * 2.0**50, 2.0**50, 0, 0],
        [above * 2.0**50, 2.0**50, 0, 0],
        # around E = -100, below which the step stays
        [8127 * 2.0**-112, 2.0**-112, 2.0**-113, 2.0**-114],
        [above * 2.0**-112, 2.0**-112, 2.0**-113, 2.0**-114],
        [8127 * 2.0**-113, 2.0**-112, 2.0**-113, 2.0**-114],
        [2.0**-100, 2.0**-101, 2.0**-112, 0],
        [2.0**-101, 2.0**-113, 0, 0],
        [2.0**-126, 2.0**-130, 0, 0],
        [least, 0, -least, least],
        [inf, 1, 2, 3],
        [1, -inf, 2, 3],
        [nan, 1, 2, 3],
        [1, inf, nan, 3],
    ]
    return [[float(np.float32(value)) for value in row] for row in rows]


def quantise_cases() -> list[dict[str, Any]]:
    folds = [None, floats([2.0**10, 2.0**-130, 2.0**100, 2.0**-112]), floats([2.0**116, 2.0**116, 1.0, float("nan")])]
    cases: list[dict[str, Any]] = []
    for fold in folds:
        for row in edges():
            x = floats(row)
            grid = formats.quantise(x, None if fold is None else fold[0])
            case = {"x": hexed(x[0]), "q": grid.q[0].tolist(), "step": hexed(grid.step[0].item())}
            cases.append(case if fold is None else case | {"fold": hexed(fold[0])})
    return cases


def product_cases() -> list[dict[str, Any]]:
    full = torch.full((2, 5), 8127.0)
    pairs = [
        (normal(3, 7, seed=1), normal(4, 7, seed=2)),
        (normal(2, 33, seed=3, scale=1e-30), normal(3, 33, seed=4, scale=1e-9)),
        (normal(2, 64, seed=5, scale=1e30), normal(2, 64, seed=6, scale=1e20)),
        (full * torch.tensor([1.0, -1.0])[:, None], full * 2.0**-100),
        (floats([1, -1, 0, 0], [0, 0, 0, 0], [float("nan"), 0, 0, 0]), floats([1, 1, 1, 1], [-1, 1, 0, 0])),
        (floats([2.0**-149, 2.0**-140]), floats([1.0, 1.0])),
    ]
    cases: list[dict[str, Any]] = []
    for x, y in pairs:
        a, b = formats.quantise(x), formats.quantise(y)
        cases.append({"a": hexed(x), "b": hexed(y), "c": hexed(product.product(a, b))})
    return cases


def folded_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for seed, (m, k, n) in enumerate([(2, 3, 4), (1, 40, 2), (3, 1, 1)]):
        x, y = normal(m, k, seed=seed), normal(k, n, seed=90 + seed)
        y[0] *= 1e-20
        b = formats.quantise(y)
        c = product.product_folded(formats.quantise(x, b.step), b)
        cases.append({"a": hexed(x), "b": hexed(y), "c": hexed(c)})
    return cases


def gradient_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for seed, (sequences, tokens, n, k) in enumerate([(1, 5, 3, 2), (3, 4, 2, 3), (2, 1, 1, 2), (2, 2, 2, 2)]):
        dy, x = normal(sequences, tokens, n, seed=seed), normal(sequences, tokens, k, seed=50 + seed)
        if seed == 2:
            dy[1] *= 1e6  # clamped
        if seed == 3:
            dy[0, 1, 0] = float("inf")
        total = torch.zeros(n, k, dtype=torch.int64)
        product.add_gradient(total, dy, formats.quantise(x))
        cases.append({"dy": hexed(dy), "x": hexed(x), "total": total.tolist()})
    return cases


def peaked(*shape: int, seed: int) -> torch.Tensor:
    """Rows like a gradient of logits: one entry of almost -1 among small ones."""
    x = normal(*shape, seed=seed).abs() * 2.0**-11
    x[..., 0] -= 1.0
    return x


def twice_cases() -> list[dict[str, Any]]:
    """Products back through a matrix, and weight gradients, both of dy on two grids."""
    cases: list[dict[str, Any]] = []
    for seed, (sequences, tokens, n, k) in enumerate([(1, 3, 40, 3), (2, 5, 9, 2), (1, 2, 3, 2), (1, 2, 4, 2)]):
        dy, x, w = peaked(sequences, tokens, n, seed=seed), normal(sequences, tokens, k, seed=70), normal(n, k, seed=71)
        w *= 2.0 ** (torch.arange(n) % 5)[:, None]
        x[0, 0] *= 0.0 if seed == 1 else 16.0
        if seed == 2:
            dy[0, 1, 2] = float("inf")
        if seed == 3:
            dy *= 2.0**-130  # remainders that are subnormal
        layer, total = Affine(Weight(w, "w")), Gradients()
        grid = formats.quantise(x)
        dx = layer.backward(dy, grid, None, total, twice=True)
        case = {"dy": hexed(dy), "x": hexed(x), "w": hexed(w), "dx": hexed(dx), "total": total.totals["w"].tolist()}
        cases.append(case)
    return cases


def vectors() -> dict[str, Any]:
    with routes.use("fp64"):
        return {
            "about": ABOUT, "quantise": quantise_cases(), "product": product_cases(), "folded": folded_cases(),
            "gradient": gradient_cases(), "twice": twice_cases(),
        }  # fmt: skip


def text() -> str:
    """One case a line, so that a change shows as one."""
    parts = [f'"about": {json.dumps(ABOUT)}']
    for name, cases in vectors().items():
        if name != "about":
            rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
            parts.append(f'"{name}": [\n{rows}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text(), "utf-8")

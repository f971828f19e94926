"""Writes docs/spec/vectors/{functions,sums,softmax,norms,rotary,losses,draws,choose}.json:
`python -m tests.numerics.exact.make_operator_vectors`.

The outputs are this implementation's; `test_kernels_vectors.py` holds them against the plain-Python reference.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fallow.numerics.exact import (
    activations,
    choose,
    draws,
    functions,
    gradients,
    gridsum,
    losses,
    norms,
    rotary,
    softmax,
)

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "spec" / "vectors"
INF, NAN = math.inf, math.nan
Case = dict[str, Any]
EDGES = [
    0.0,
    -0.0,
    INF,
    -INF,
    NAN,
    1e-45,
    -1e-45,
    1.1754944e-38,
    1.0,
    -1.0,
    0.5,
    -0.5,
    88.72284,
    -103.97208,
    3e38,
    -3e38,
]
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192.0}


def hexed(value: Any) -> Any:
    """Tensors of binary32 or binary64 as nested lists of their bits, of integers and truth as they are."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value.tolist()
        return _bits(value.tolist(), ">f" if value.dtype == torch.float32 else ">d")
    return _bits(value, ">d")


def _bits(value: Any, kind: str) -> Any:
    if isinstance(value, list):
        return [_bits(item, kind) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if value != value:
        return "7fc00000" if kind == ">f" else "7ff8000000000000"
    return struct.pack(kind, value).hex()


def some(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Normal numbers of numpy's, which do not change."""
    return torch.from_numpy((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))


def inputs(seed: int) -> Tensor:
    near = [some(12, seed=seed + i, scale=scale) for i, scale in enumerate((0.01, 1.0, 5.0, 40.0))]
    return torch.cat([torch.tensor(EDGES), *near])


FUNCTIONS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "exp": (0, functions.exp64),
    "log": (10, functions.log64),
    "sin": (60, lambda x: functions.sincos64(x)[0]),
    "cos": (70, lambda x: functions.sincos64(x)[1]),
}
"""Functions of section 6, with the seeds of their inputs."""


def function_cases() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for name, (seed, function) in FUNCTIONS.items():
        x = inputs(seed)
        found[name] = [{"x": hexed(x), "y": hexed(function(x.double()).float())}]
    gate, up, dy = inputs(300), some(len(EDGES) + 48, seed=1), some(len(EDGES) + 48, seed=2)
    case = {"gate": gate, "up": up, "dy": dy, "y": activations.silu_mul(gate, up)}
    case["d_gate"], case["d_up"] = activations.silu_mul_backward(dy, gate, up)
    return found | {"silu_mul": [{key: hexed(value) for key, value in case.items()}]}


def sum_cases() -> dict[str, list[Case]]:
    rows = [
        [0.0, -0.0], [-0.0], [1.0, NAN], [1.0, INF], [2.0**900, 1.0], [2.0**-901, 2.0**-901], [2.0**-900, 2.0**-900],
        [1.0, -1.0, 2.0**-36], [1.0, -1.0, 3 * 2.0**-36], [1.5, 2.0**-35, 2.0**-34], [-(2.0**899), 2.0**880],
        some(30, seed=1).double().tolist(), (some(9, seed=2).double() * 1e-30).tolist(),
    ]  # fmt: skip
    terms = [torch.tensor(row, dtype=torch.float64) for row in rows]
    tokens = [some(t, 2, seed=t).double() for t in (1, 2, 3, 8, 9)]
    tokens += [torch.tensor([[1e30, NAN], [-1e30, 1.0], [2.0**20, 1.0]], dtype=torch.float64)]
    ids, dy = torch.tensor([4, 1, 4, 4, 0]), some(5, 2, seed=3)
    dy[2, 1] = NAN
    touched, entries = gradients.embedding_gradient(ids, dy)
    table = {"ids": ids.tolist(), "dy": hexed(dy), "rows": touched.tolist(), "entries": entries.tolist()}
    return {
        "gridsum": [{"terms": hexed(row), "sum": hexed(gridsum.gridsum(row))} for row in terms],
        "tokens": [{"terms": hexed(one), "entries": gridsum.sequence_gradient(one).tolist()} for one in tokens],
        "embedding": [table],
    }


def softmax_cases() -> dict[str, list[Case]]:
    rows = [
        [0.0, -INF, 0.0],
        [3e38, -3e38, 0.0],
        [NAN, 1.0],
        [INF, 1.0],
        [-INF, -INF],
        [5.0],
        some(33, seed=1).tolist(),
    ]
    found: list[Case] = []
    whole = [(torch.tensor(row), 0, len(row), 1.0) for row in rows]
    parts = [(some(20, seed=2, scale=9), 3, 17, 0.125), (some(9, seed=3), 4, 4, 1.0), (some(9, seed=4), 0, 1, 0.3)]
    for number, (x, start, stop, scale) in enumerate(whole + parts):
        span = softmax.Span(torch.tensor(start), torch.tensor(stop))
        p, dp = softmax.softmax(x, span, scale=scale), some(len(x), seed=50 + number)
        dx = softmax.softmax_backward(p, dp, scale=scale)
        place = {"start": start, "stop": stop, "scale": hexed(scale)}
        found.append({"x": hexed(x), **place, "p": hexed(p), "dp": hexed(dp), "dx": hexed(dx)})
    return {"softmax": found}


def norm_cases() -> dict[str, list[Case]]:
    found: list[Case] = []
    for number, (tokens, n, scale) in enumerate([(1, 1, 1.0), (3, 7, 1.0), (2, 33, 1e-3), (2, 8, 1e18), (2, 4, 1.0)]):
        x, w = some(tokens, n, seed=number, scale=scale), some(n, seed=20 + number)
        dy = some(tokens, n, seed=60 + number)
        if number == 4:
            x[0], x[1, 1] = 0.0, NAN
        case = {"x": x, "w": w, "dy": dy}
        y, r = norms.rms_norm(x, w, 1e-5)
        dx, dw = norms.rms_norm_backward(dy, x, w, r), norms.rms_norm_weight_gradient(dy, x, r)
        rms = case | {"r": r, "y": y, "dx": dx, "dw": dw}
        found.append({key: hexed(value) for key, value in rms.items()})
    return {"rms_norm": found}


def rotary_cases() -> dict[str, list[Case]]:
    kinds: list[tuple[int, float, str, dict[str, float]]] = [
        (8, 10000.0, "default", {}), (64, 100000.0, "default", {}), (8, 10000.0, "linear", {"factor": 4.0}),
        (64, 500000.0, "llama3", LLAMA3),
    ]  # fmt: skip
    found: dict[str, list[Case]] = {"frequencies": [], "tables": [], "rotate": []}
    for size, base, kind, setting in kinds:
        inverse = rotary.frequencies(size, base, {"rope_type": kind, **setting})
        case = {"size": size, "base": hexed(base), "kind": kind, "setting": setting, "inverse": hexed(inverse)}
        found["frequencies"].append(case)
        positions = torch.tensor([0, 1, 77, 131071])
        cos, sin = rotary.tables(positions, inverse[:4])
        found["tables"].append({
            "positions": positions.tolist(), "inverse": hexed(inverse[:4]), "cos": hexed(cos), "sin": hexed(sin),
        })  # fmt: skip
        x = some(4, 1, 8, seed=size)
        y, back = rotary.rotate(x, cos, sin)[:, 0], rotary.rotate_back(x, cos, sin)[:, 0]
        found["rotate"].append({
            "x": hexed(x[:, 0]), "cos": hexed(cos), "sin": hexed(sin), "y": hexed(y), "back": hexed(back),
        })  # fmt: skip
    return found


def loss_cases() -> dict[str, list[Case]]:
    rows = [(some(20, seed=1, scale=4), 3), (some(300, seed=2, scale=8), 299), (torch.tensor([3e38, -3e38]), 0)]
    rows += [(torch.tensor([1.0, NAN]), 0), (torch.tensor([1.0, NAN]), -100), (torch.tensor([2.0]), 0)]
    found: dict[str, list[Case]] = {"cross_entropy": [], "total": []}
    for x, target in rows:
        loss, slope = losses.cross_entropy(x[None], torch.tensor([target]))
        found["cross_entropy"].append({
            "x": hexed(x), "target": target, "loss": hexed(loss[0]), "gradient": hexed(slope[0]),
        })  # fmt: skip
    for each in (some(9, seed=3, scale=3).abs(), torch.tensor([5e3, 1.0]), torch.tensor([1.0, NAN]), torch.zeros(0)):
        total = losses.total_loss(each)
        found["total"].append({"losses": hexed(each), "total": int(total)})
    return found


def draw_cases() -> dict[str, list[Case]]:
    found: list[Case] = []
    names = [(0, 0, 0, 0), (2**64 - 1, 2**32 - 1, 2**32 - 1, 2**34 - 1), (0x0123456789ABCDEF, 7, 1000, 49151)]
    names += [(5, 1, 2, index) for index in range(12)] + [(2**63, 3, 2**31, 2**33 + 5)]
    for seed, stream, position, index in names:
        at = (seed, stream, position, torch.tensor(index))
        found.append({
            "seed": seed, "stream": stream, "position": position, "index": index, "word": int(draws.words(*at)),
            "uniform": hexed(draws.uniform(*at)), "gumbel64": hexed(draws.gumbel64(*at)),
        })  # fmt: skip
    return {"draws": found}


def choice_cases() -> dict[str, list[Case]]:
    rows = [[1.0, 3.0, 3.0, -0.0, 0.0, NAN], [-INF, NAN], [INF, INF, 1.0], some(40, seed=1, scale=2).tolist()]
    found: dict[str, list[Case]] = {"order": [], "top_p": [], "sample": []}
    for number, row in enumerate(rows):
        x = torch.tensor(row)
        found["order"].append({"x": hexed(x), "order": choose.top_k(x, len(row)).tolist()})
        found["top_p"] += [
            {"x": hexed(x), "p": hexed(p), "kept": choose.top_p(x, p).tolist()} for p in (0.0, 0.5, 0.9, 1.0)
        ]
        for temperature, k, p in (
            (0.0, None, None),
            (1.0, None, None),
            (0.7, 20, 0.9),
            (2.5, None, 0.8),
            (1.3, 2, None),
        ):
            chosen = choose.sample(x, temperature, 99, 1, 5 + number, k=k, p=p)
            found["sample"].append({
                "x": hexed(x), "temperature": hexed(temperature), "seed": 99, "stream": 1, "position": 5 + number,
                "k": k, "p": None if p is None else hexed(p), "chosen": int(chosen),
            })  # fmt: skip
    return found


FILES: dict[str, tuple[str, Callable[[], dict[str, list[Case]]]]] = {
    "functions": ("sections 6 and 8", function_cases),
    "sums": ("sections 4, 5 and 12", sum_cases),
    "softmax": ("section 7", softmax_cases),
    "norms": ("section 9, eps = 1e-5", norm_cases),
    "rotary": ("section 10", rotary_cases),
    "losses": ("section 11", loss_cases),
    "draws": ("section 13", draw_cases),
    "choose": ("section 14", choice_cases),
}


def text(name: str) -> str:
    """One case a line, so that a change shows as one."""
    sections, cases = FILES[name]
    about = (
        f"Vectors for {sections} of exact-arithmetic.md. Binary32 numbers are the 8 hexadecimal digits of their bits, "
        "binary64 the 16 of theirs, every NaN as 7fc00000 or 7ff8000000000000; integers are JSON integers."
    )
    parts = [f'"about": {json.dumps(about)}']
    for group, rows in cases().items():
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        parts.append(f'"{group}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    for file in FILES:
        (FOLDER / f"{file}.json").write_text(text(file), "utf-8")

"""The compiled kernels as functions of tensors: what C needs to hold true is checked here, and nothing is copied that
already lies as it must.

Source: csrc/exact.h and the files beside it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_TERMS = 1 << 18
"""The kernels' int32 high parts hold as many terms, with room."""
_PANEL = 32
_KEPT_SCRATCH = 1 << 25
_ARGUMENT = ctypes.c_int64
_ADDRESS = ctypes.c_void_p


class _Product(ctypes.Structure):
    _fields_ = [
        *[(name, _ADDRESS) for name in ("a", "a_step")],
        *[(name, _ARGUMENT) for name in ("a_batch", "a_row", "a_term")],
        *[(name, _ADDRESS) for name in ("b", "b_step")],
        *[(name, _ARGUMENT) for name in ("b_batch", "b_column", "b_term")],
        *[(name, _ADDRESS) for name in ("panels", "out")],
        *[(name, _ARGUMENT) for name in ("batch", "m", "n", "k")],
        *[(name, _ADDRESS) for name in ("visible", "scratch")],
        *[(name, _ARGUMENT) for name in ("scratch_size", "threads", "cap")],
    ]


class _Gradient(ctypes.Structure):
    _fields_ = [
        *[(name, _ADDRESS) for name in ("dy", "x", "x_step", "total")],
        *[(name, _ARGUMENT) for name in ("sequences", "tokens", "n", "k")],
        ("scratch", _ADDRESS),
        *[(name, _ARGUMENT) for name in ("scratch_size", "threads", "cap")],
    ]


@dataclass
class Panels:
    """A matrix of weights, quantised by rows and packed: `step` (n), and panels for both ways."""

    step: Tensor
    forward: Tensor
    back: Tensor | None
    n: int
    k: int

    @property
    def job(self) -> _Product:
        """A forward product with all but its left side filled in."""
        return _Product(
            None, None, 0, self.k, 1, None, self.step.data_ptr(), 0, 0, 0, self.forward.data_ptr(), None, 1, 0, self.n,
            self.k,
        )  # fmt: skip

    def integers(self) -> Tensor:
        """The matrix on its grids, (n, k) int16."""
        pairs = (self.k + 1) // 2
        lines = self.forward.view(-1, pairs, _PANEL, 2).permute(0, 2, 1, 3).reshape(-1, 2 * pairs)
        return lines[: self.n, : self.k].contiguous()


class _Text(ctypes.Structure):
    _fields_ = [
        *[(name, _ADDRESS) for name in ("keys", "key_steps", "values", "value_steps")],
        *[(name, _ARGUMENT) for name in ("room", "past", "count")],
    ]


class _Attention(ctypes.Structure):
    _fields_ = [
        *[(name, _ADDRESS) for name in ("q", "k", "v", "out", "texts")],
        *[(name, _ARGUMENT) for name in ("text_count", "heads", "group", "size", "window")],
        ("scale", ctypes.c_double),
        *[(name, _ARGUMENT) for name in ("threads", "cap")],
    ]


@dataclass(frozen=True)
class Kept:
    """A text's keys and values in one layer, packed: csrc/cached.c says how they lie. `room` tokens, a multiple of 32,
    fit in."""

    keys: Tensor
    key_steps: Tensor
    values: Tensor
    value_steps: Tensor
    room: int

    def grown(self, room: int) -> Kept:
        """The same with more room."""
        heads, _, pairs = self.keys.shape[:3]
        new = _kept(heads, pairs, self.values.shape[1], room)
        new.keys[:, : self.keys.shape[1]] = self.keys
        new.values[:, :, : self.values.shape[2]] = self.values
        new.key_steps[:, : self.room] = self.key_steps
        new.value_steps[:, : self.room] = self.value_steps
        return new

    def places(self) -> tuple[int, int, int, int]:
        """The addresses, in the order of the C structure."""
        return (
            self.keys.data_ptr(), self.key_steps.data_ptr(), self.values.data_ptr(), self.value_steps.data_ptr()
        )  # fmt: skip


def kept_room(heads: int, size: int, room: int) -> Kept:
    """An empty cache for `room` tokens of `heads` heads of `size` entries."""
    return _kept(heads, (size + 1) // 2, -(-size // _PANEL), room)


def _kept(heads: int, pairs: int, panels: int, room: int) -> Kept:
    return Kept(
        torch.zeros(heads, room // _PANEL, pairs, _PANEL, 2, dtype=torch.int16), torch.zeros(heads, room),
        torch.zeros(heads, panels, room // 2, _PANEL, 2, dtype=torch.int16), torch.zeros(heads, room), room,
    )  # fmt: skip


class _Scratch(threading.local):
    """Memory of a thread that calls, kept from call to call."""

    held: Tensor | None = None

    def of(self, size: int) -> Tensor:
        if self.held is not None and self.held.numel() >= size:
            return self.held
        fresh = torch.empty(size, dtype=torch.int16)
        if size <= _KEPT_SCRATCH:
            self.held = fresh
        return fresh


class Kernels:
    """The functions of a loaded library. All take tensors on the CPU, and `cap`, the highest instruction set to use."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.fallow_isa.restype = ctypes.c_char_p
        library.fallow_largest_bits.restype = ctypes.c_uint32
        for name in ("fallow_packed_size", "fallow_product_scratch", "fallow_gradient_scratch", "fallow_squares"):
            getattr(library, name).restype = _ARGUMENT
        i, p, n = _ARGUMENT, _ADDRESS, ctypes.c_int
        library.fallow_packed_size.argtypes = [i, i]
        library.fallow_quantise.argtypes = [p, i, p, i, i, i, p, p, n, n]
        library.fallow_quantise_columns.argtypes = [p, p, i, i, i, p, p, n, n]
        library.fallow_pack.argtypes = [p, i, i, i, i, p, n, n]
        library.fallow_weights.argtypes = [p, i, i, i, p, p, p, n, n]
        library.fallow_linear.argtypes = [p, p, p, p]
        self._quantise, self._linear, self._scratch = library.fallow_quantise, library.fallow_linear, _Scratch()

    def isa(self, cap: int) -> str:
        """The instruction set that is used under a cap."""
        return self.library.fallow_isa(cap).decode()

    def quantise(self, x: Tensor, fold: Tensor | None, cap: int) -> tuple[Tensor, Tensor]:
        """Section 3.1 along the last dimension. `x`: (..., n, k), `fold`: (..., k), float32. Returns q and step."""
        *_, n, k = x.shape
        x = x if x.dim() == 2 and x.stride(1) == 1 else x.contiguous()
        rows, group = x.shape[:-1].numel(), n
        if fold is not None:
            group = rows if fold.dim() == 1 else n
            fold = (fold if fold.dim() == 1 else fold.expand(*x.shape[:-2], k)).contiguous()
            _expect(fold.shape[-1] == k and fold.dtype == torch.float32, "fold", fold)
        q = torch.empty(x.shape, dtype=torch.int16)
        step = torch.empty(x.shape[:-1])
        self._quantise(
            x.data_ptr(), x.stride(0) if x.dim() == 2 else k, None if fold is None else fold.data_ptr(), max(group, 1),
            rows, k, q.data_ptr(), step.data_ptr(), _threads(x.numel()), cap,
        )  # fmt: skip
        return q, step

    def quantise_columns(self, x: Tensor, fold: Tensor | None, cap: int) -> tuple[Tensor, Tensor]:
        """The same along the dimension before the last. `x`: (..., k, n); `fold`: (..., k). q is a transposed view."""
        *_, k, n = x.shape
        x = x.contiguous()
        if fold is not None:
            fold = fold.expand(*x.shape[:-2], k).contiguous()
            _expect(fold.dtype == torch.float32, "fold", fold)
        q = torch.empty(x.shape, dtype=torch.int16)
        step = torch.empty(*x.shape[:-2], n)
        self.library.fallow_quantise_columns(
            x.data_ptr(), None if fold is None else fold.data_ptr(), x.shape[:-2].numel(), k, n, q.data_ptr(),
            step.data_ptr(), _threads(x.numel()), cap,
        )  # fmt: skip
        return q.mT, step

    def pack(self, q: Tensor, cap: int) -> Tensor:
        """B, (n, k) int16, as panels for `product`."""
        q, row, term = _lines(q)
        panels = torch.empty(self.library.fallow_packed_size(*q.shape), dtype=torch.int16)
        self.library.fallow_pack(q.data_ptr(), row, term, *q.shape, panels.data_ptr(), _threads(q.numel()), cap)
        return panels

    def weights(self, w: Tensor, panels: Panels | None, *, back: bool, cap: int) -> Panels:
        """`w`, (n, k) float32, quantised by rows and packed, into the memory of `panels` where given; `back`: for the
        way back too."""
        n, k = w.shape
        _expect(w.dtype == torch.float32 and n > 0 and 0 < k <= MAX_TERMS and n <= MAX_TERMS, "w", w)
        w = w if w.stride(1) == 1 else w.contiguous()
        if panels is None:
            size = self.library.fallow_packed_size(n, k)
            panels = Panels(torch.empty(n), torch.empty(size, dtype=torch.int16), None, n, k)
        if back and panels.back is None:
            panels.back = torch.empty(self.library.fallow_packed_size(k, n), dtype=torch.int16)
        to_back = None if panels.back is None else panels.back.data_ptr()
        if self.library.fallow_weights(
            w.data_ptr(), w.stride(0), n, k, panels.step.data_ptr(), panels.forward.data_ptr(), to_back,
            _threads(n * k), cap,
        ):  # fmt: skip
            raise MemoryError("no memory to quantise weights in")
        return panels

    def linear(self, x: Tensor, panels: Panels, cap: int) -> Tensor:
        """X W^T, (..., n) float32, of x: (..., k) float32, quantised by rows on the way: one call, for few rows."""
        x, k = x.contiguous(), panels.k
        _expect(x.dtype == torch.float32 and x.shape[-1] == k, "x", x)
        m, out = x.numel() // k, torch.empty(*x.shape[:-1], panels.n)
        job, pairs = panels.job, k + k % 2
        scratch = self._scratch.of(2 * m * pairs + 2 * m)
        start = scratch.data_ptr()
        job.a_step, job.a, job.scratch, job.scratch_size = start, start + 4 * m, start + 4 * m + 2 * m * k, m * pairs
        job.out, job.m, job.threads, job.cap = out.data_ptr(), m, _threads(m * panels.n * k >> 4), cap
        if self._linear(x.data_ptr(), job.a, job.a_step, ctypes.byref(job)):
            raise AssertionError("too little scratch")
        return out

    def product(
        self, a: Tensor, a_step: Tensor, b: Tensor | None, b_step: Tensor | None,
        packed: tuple[Tensor, int] | None = None, *, visible: Tensor | None = None, cap: int,
    ) -> Tensor:  # fmt: skip
        """A B^T with steps, (..., m, n) float32. `a`: (..., m, k) int16, `a_step`: (..., m); `b`: (..., n, k) int16, or
        None and then `packed`, its panels and n; `b_step`: (..., n), or None for ones; `visible`: (m) int32, how many
        entries of a row are computed, the rest being 0."""
        m, k = a.shape[-2:]
        shape = a.shape[:-2] if b is None else torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        n = b.shape[-2] if b is not None else packed[1] if packed else 0
        _expect(a.dtype == torch.int16 and 0 < k <= MAX_TERMS, "a", a)
        _expect(b is None or (b.dtype == torch.int16 and b.shape[-1] == k), "b", b)
        _expect(visible is None or (visible.dtype == torch.int32 and visible.shape == (m,)), "visible", visible)
        a, a_row, a_term = _lines(_items(a, shape))
        a_step = _expanded(a_step, (*shape, m))
        b_step = b_step if b_step is None else _expanded(b_step, (*(shape if b is not None else ()), n))
        out = torch.empty(*shape, m, n)
        job = _Product(
            a.data_ptr(), a_step.data_ptr(), _batch_stride(a), a_row, a_term,
            None, None if b_step is None else b_step.data_ptr(), 0, 0, 0,
            packed[0].data_ptr() if packed else None, out.data_ptr(), shape.numel(), m, n, k,
        )  # fmt: skip
        if b is not None:
            b, job.b_column, job.b_term = _lines(_items(b, shape))
            job.b, job.b_batch = b.data_ptr(), _batch_stride(b)
        elif packed:
            _expect(packed[0].numel() == self.library.fallow_packed_size(n, k), "packed", packed[0])
        if visible is not None:
            visible = visible.contiguous()
            job.visible = visible.data_ptr()
        job.threads, job.cap = _threads(shape.numel() * m * n * k >> 4), cap
        scratch = self._scratch.of(self.library.fallow_product_scratch(ctypes.byref(job)))
        job.scratch, job.scratch_size = scratch.data_ptr(), scratch.numel()
        if self.library.fallow_product(ctypes.byref(job)):
            raise AssertionError("too little scratch")
        return out

    def attend(
        self, texts: Sequence[tuple[Kept, int, int]], turned: tuple[Tensor, Tensor, Tensor],
        heads: tuple[int, int, int], window: int, scale: float, cap: int,
    ) -> Tensor:  # fmt: skip
        """Attention of new tokens over caches, which take them in. `texts`: for each its cache, the tokens that are in
        it and how many come now; `turned`: queries (1, tokens, key heads x group, size), keys and values (1, tokens,
        key heads, size) of all texts behind each other, fp32; `heads`: key heads, group, size. Returns the mixed
        values, as the queries."""
        keys, group, size = heads
        tokens = sum(count for _, _, count in texts)
        q, k, v = (x.contiguous() for x in turned)
        for x, count in ((q, keys * group), (k, keys), (v, keys)):
            _expect(x.dtype == torch.float32 and x.shape == (1, tokens, count, size), "turned", x)
        rows, work = (_Text * len(texts))(), 0
        for at, (kept, past, count) in enumerate(texts):
            shape = (keys, kept.room // _PANEL, (size + 1) // 2, _PANEL, 2)
            fits = past >= 0 and count > 0 and past + count <= min(kept.room, MAX_TERMS)
            _expect(fits and kept.keys.shape == shape, "text", kept.keys)
            rows[at] = _Text(*kept.places(), kept.room, past, count)
            work += count * (past + count)
        out = torch.empty_like(q)
        job = _Attention(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), ctypes.addressof(rows), len(texts), keys, group,
            size, window, scale, _threads(work * keys * group * size >> 3), cap,
        )  # fmt: skip
        if self.library.fallow_attend(ctypes.byref(job)):
            raise MemoryError("no memory to attend in")
        return out

    def add_gradient(self, total: Tensor, dy: Tensor, x: Tensor, x_step: Tensor, cap: int) -> None:
        """Section 3.4. `total`: (n, k) int64; `dy`: (sequences, tokens, n) float32; `x`: (sequences, tokens, k) int16,
        `x_step`: (sequences, tokens)."""
        sequences, tokens, n = dy.shape
        k = x.shape[-1]
        _expect(total.dtype == torch.int64 and total.shape == (n, k) and total.is_contiguous(), "total", total)
        _expect(dy.dtype == torch.float32 and tokens <= MAX_TERMS, "dy", dy)
        _expect(x.dtype == torch.int16 and x.shape == (sequences, tokens, k), "x", x)
        dy, x, x_step = dy.contiguous(), x.contiguous(), _expanded(x_step, (sequences, tokens))
        job = _Gradient(dy.data_ptr(), x.data_ptr(), x_step.data_ptr(), total.data_ptr(), sequences, tokens, n, k)
        if not (sequences and tokens and n and k):
            return
        job.threads, job.cap = _threads(dy.numel() * k >> 4), cap
        scratch = self._scratch.of(self.library.fallow_gradient_scratch(ctypes.byref(job)))
        job.scratch, job.scratch_size = scratch.data_ptr(), scratch.numel()
        if self.library.fallow_add_gradient(ctypes.byref(job)):
            raise AssertionError("too little scratch")


def _expect(holds: bool, name: str, found: Tensor | None) -> None:
    if not holds:
        shape = None if found is None else (found.dtype, tuple(found.shape))
        raise ValueError(f"{name} does not fit: {shape}")


def _threads(work: int) -> int:
    """Threads for a number of elements (or of sixteen multiplications): few are not worth waking one."""
    return torch.get_num_threads() if work >= 1 << 15 else 1


def _expanded(x: Tensor, shape: Sequence[int]) -> Tensor:
    _expect(x.dtype == torch.float32, "step", x)
    return (x if x.shape == torch.Size(shape) else x.expand(shape)).contiguous()


def _items(q: Tensor, shape: torch.Size) -> Tensor:
    """(..., n, k) as (items, n, k), or (1, n, k) for a whole batch."""
    if q.dim() == 2:
        return q[None]
    if q.shape[:-2] != shape and q.shape[:-2].numel() == 1:
        return q.reshape(1, *q.shape[-2:])
    return q.expand(*shape, *q.shape[-2:]).reshape(-1, *q.shape[-2:])


def _batch_stride(q: Tensor) -> int:
    return q.stride(0) if q.shape[0] > 1 else 0


def _lines(q: Tensor) -> tuple[Tensor, int, int]:
    """A matrix (or several) with its strides along rows and along terms, of which one is 1."""
    if q.stride(-1) == 1 or q.shape[-1] == 1:
        return q, q.stride(-2), 1
    if q.stride(-2) == 1 or q.shape[-2] == 1:
        return q, 1, q.stride(-1)
    q = q.contiguous()
    return q, q.stride(-2), 1

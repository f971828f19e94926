"""The gateway's API keys, kept by the steward so that gateways hold nothing and may die at any moment. Secrets are
stored as hashes only; what a key may spend follows `rules/spending.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec
from blake3 import blake3

from fallow.errors import FallowError, fail
from fallow.node.router import Caller, Router
from fallow.ports import Clock, Entropy, EventLog
from fallow.rules.spending import MAX_KEYS, ApiKey, available_ucr, post, reserve
from fallow.units import format_money
from fallow.wire import local
from fallow.wire.messages import Ok

PREFIX_LETTERS = 11
_CELL = "apikey/"
Saved = Callable[[FallowError | None], None]
"""Called when what was changed is on disk, or with why it is not."""


def _name(secret: str) -> str:
    return blake3(b"fallow api key" + secret.encode()).hexdigest()


class ApiKeys:
    """All keys of one steward. What an owner changes is on disk before it is answered; reservations and bookings go
    there together, as many as come in the time of one write, and whoever needs to know waits for `saved`."""

    def __init__(self, log: EventLog, clock: Clock, entropy: Entropy) -> None:
        self._log, self._clock, self._entropy = log, clock, entropy
        self._keys: dict[str, ApiKey] = {}
        self._operations: dict[bytes, str] = {}
        self._dirty: set[str] = set()
        self._then: list[Saved] = []
        self._writing = False
        for cell in log.keys(_CELL):
            if (raw := log.get(cell)) is not None:
                key = self._keys[cell.removeprefix(_CELL)] = msgspec.msgpack.decode(raw, type=ApiKey)
                key.reserved.clear()  # of requests that ended with the process before this one

    def _save(self, *names: str) -> None:
        self._log.put_all(self._cells(sorted(names)))

    def _cells(self, names: Iterable[str]) -> dict[str, bytes]:
        return {_CELL + name: msgspec.msgpack.encode(self._keys[name]) for name in names}

    def saved(self, then: Saved) -> None:
        """Call `then` once everything reserved and booked so far is on disk; `write` must run after this."""
        self._then.append(then)

    async def write(self) -> None:
        """Write until nothing waits to be written. One of several calls at a time does it; others return at once."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._dirty or self._then:
                names, self._dirty = self._dirty, set()
                then, self._then = self._then, []
                error = await self._put(self._cells(sorted(names)))
                if error is not None:
                    self._dirty |= names
                for call in then:
                    call(error)
                if error is not None and not self._then:
                    return  # written with the next change
        finally:
            self._writing = False

    async def _put(self, cells: dict[str, bytes]) -> FallowError | None:
        try:
            await asyncio.to_thread(self._log.put_all, cells)
        except FallowError as error:
            return error
        return None

    def _by_prefix(self, prefix: str) -> str:
        found = [n for n, k in self._keys.items() if k.prefix.startswith(prefix)]
        if len(found) != 1 or len(prefix) < 4:
            raise fail("E1902", f"No single API key starts with {prefix!r}.")
        return found[0]

    def make(self, label: str, budget_ucr: int) -> str:
        """-> the new key's secret, which is shown this once. Raises UsageError E1904 at the limit of keys."""
        if len(self._keys) >= MAX_KEYS:
            raise fail("E1904", f"There are {MAX_KEYS} API keys already.")
        secret = "fk-" + self._entropy.draw(24).hex()
        name = _name(secret)
        self._keys[name] = ApiKey(secret[:PREFIX_LETTERS], label, budget_ucr)
        self._save(name)
        return secret

    def views(self) -> tuple[local.KeyView, ...]:
        return tuple(
            local.KeyView(k.prefix, k.label, k.budget_ucr, k.spent_ucr, k.revoked) for k in self._keys.values()
        )

    def change(self, prefix: str, add_ucr: int, revoke: bool) -> None:
        """Add to a key's budget, or revoke it. Raises UsageError E1902 unless exactly one key matches."""
        name = self._by_prefix(prefix)
        self._keys[name].budget_ucr += add_ucr
        self._keys[name].revoked = self._keys[name].revoked or revoke
        self._save(name)

    def check(self, secret: str) -> str:
        """-> the name of the key with this secret. Raises UsageError E1902 for a wrong or revoked one."""
        name = _name(secret)
        key = self._keys.get(name)
        if key is None or key.revoked:
            raise fail("E1902", "The API key is not valid.")
        return name

    def reserve(self, secret: str, amount_ucr: int) -> bytes:
        """-> the operation to book it with, once. Raises UsageError E1902 for a wrong or revoked key, RejectedError
        E1905 when the budget does not cover it. On disk when `saved` says so."""
        name, operation, now_ms = self.check(secret), self._entropy.draw(32), self._clock.now_ms()
        key = self._keys[name]
        if not reserve(key, operation, amount_ucr, now_ms):
            left = format_money(available_ucr(key, now_ms))
            raise fail("E1905", f"The request may cost {format_money(amount_ucr)}, the key has {left} left.")
        self._operations[operation] = name
        self._dirty.add(name)
        return operation

    def post(self, operation: bytes, amount_ucr: int) -> None:
        """Book a request's cost; nothing happens for an operation that is unknown or booked already. On disk when
        `saved` says so."""
        name = self._operations.pop(operation, None)
        if name is not None:
            post(self._keys[name], operation, amount_ucr)
            self._dirty.add(name)


def serve_api_keys(router: Router, keys: ApiKeys) -> None:
    """Answer the owner's and the gateway's calls about keys over the local socket."""

    @router.on(local.MakeKey)
    async def _(_caller: Caller, request: local.MakeKey) -> local.KeyMade:
        return local.KeyMade(keys.make(request.label, request.budget_ucr))

    @router.on(local.ListKeys)
    async def _(_caller: Caller, _request: local.ListKeys) -> local.KeyList:
        return local.KeyList(keys.views())

    @router.on(local.ChangeKey)
    async def _(_caller: Caller, request: local.ChangeKey) -> Ok:
        keys.change(request.prefix, request.add_ucr, request.revoke)
        return Ok()

    @router.on(local.CheckKey)
    async def _(_caller: Caller, request: local.CheckKey) -> Ok:
        keys.check(request.secret)
        return Ok()

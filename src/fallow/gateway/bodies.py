"""What of a request comes before its meaning: the key and the body.

Defends against: bodies that are large, slow, or small and large once unpacked.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from starlette.requests import Request

from fallow.errors import fail

MAX_BODY_BYTES = 1 << 20
MAX_SECRET_CHARS = 200
BODY_S = 30.0
"""How long a client may take to send a request's body."""
_GZIP = 16 + zlib.MAX_WBITS


def secret_of(request: Request) -> str:
    """The API key, where the clients of each door put it. Raises UsageError E1902 when there is none."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        secret = request.headers.get("api-key") or request.headers.get("x-api-key", "")
    if not secret.strip():
        raise fail("E1902", "No API key was sent.", next_step="Send the header Authorization: Bearer KEY.")
    return secret.strip()[:MAX_SECRET_CHARS]


async def read_body(request: Request, count: Callable[[int], None]) -> bytes:
    """The body, read and unpacked no further than the limit: a client may announce any length, or none. `count` is told
    how much is held. Errors: UsageError E1903 when it is longer, E1904 when it does not come or is packed otherwise."""
    unpack = _unpacker(request.headers.get("content-encoding", "").strip().lower())
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                data += unpack(piece, MAX_BODY_BYTES + 1 - len(data))
                if len(data) > MAX_BODY_BYTES:
                    raise fail("E1903", f"The request is longer than {MAX_BODY_BYTES} bytes.")
                count(len(data))
    except TimeoutError:
        raise fail("E1904", f"The request's body did not come within {BODY_S:g} s.") from None
    except zlib.error:
        raise fail("E1904", "The request's body is no gzip, as its header says.") from None
    return bytes(data)


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes]:
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompressobj(_GZIP).decompress
    if encoding not in ("", "identity"):
        raise fail(
            "E1904", f"Bodies packed with {encoding[:40]!r} are not read.", next_step="Send it plain, or as gzip."
        )
    return lambda piece, _most: piece

"""Chats through a model's own template. A template is a program of whoever made the model: it runs in Jinja's sandbox,
for so long and no longer, and what it writes is bounded.

Defends against: templates that loop, or that write without end. Does not defend against: one that computes inside a
single operation (a number with a million digits), which cannot be interrupted: the provider ends a worker that is
silent for too long.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

LIMIT_S = 10.0
AGAIN_S = 0.05
MAX_DEPTH = 1_000
MAX_CHARS = 1 << 20
CHARS_PER_CHAR = 16
"""A template may write so much for each character of the chat, beside MAX_CHARS."""
TemplateTurn = Mapping[str, Any]
T = TypeVar("T")


class TemplateError(Exception):
    """The template does not give a text for this chat; the text says why, in one line."""


class _Late(BaseException):
    """Raised inside whatever takes too long, again and again: there is code that swallows what is raised in it."""


def render(
    tokenizer: Any, turns: Sequence[TemplateTurn], tools: Sequence[Mapping[str, Any]] = (), *, answer_next: bool
) -> str:
    """`turns` (role, content, and what else the template may know) as the text that the model was trained on; with
    `answer_next` the beginning of the answer's turn as well. Raises TemplateError."""
    how: dict[str, Any] = {"tokenize": False, "add_generation_prompt": answer_next, "tools": list(tools) or None}
    text = limited(lambda: cast(str, tokenizer.apply_chat_template(list(turns), **how)))
    return bounded(text, len(str(turns) + str(tools)))


def limited(act: Callable[[], T], pieces: int = 1) -> T:
    """Do `act`, in which a template writes `pieces` texts. Raises TemplateError, whatever is raised in there."""
    depth, seconds = sys.getrecursionlimit(), LIMIT_S + AGAIN_S * (pieces - 1)
    try:
        sys.setrecursionlimit(min(depth, MAX_DEPTH))  # libraries raise it so far that the stack ends first
        return _limited(act, seconds)
    except (MemoryError, TemplateError):
        raise
    except _Late:
        raise TemplateError(f"it took longer than {seconds:g} s") from None
    except Exception as error:  # a model's own template may raise anything
        raise TemplateError(" ".join(str(error).split())[:200]) from error
    finally:
        sys.setrecursionlimit(depth)


def bounded(text: str, chars: int) -> str:
    """A text that a template wrote for a chat of so many characters. Raises TemplateError when it is too long."""
    if len(text) > MAX_CHARS + CHARS_PER_CHAR * chars:
        raise TemplateError(f"it wrote {len(text):,} characters")
    return text


def _limited(act: Callable[[], T], seconds: float) -> T:
    """Do `act` in a thread of its own; raises _Late in there once it has taken that long, and then out of here. Whoever
    calls is never interrupted, so nothing of ours can be hit where it is not caught."""
    given: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            try:
                given.append(act())
            except BaseException as error:  # noqa: BLE001  (raised again where the result is waited for)
                failed.append(error)
        except _Late:  # one more, while the last was being noted
            pass

    told, sys.unraisablehook = sys.unraisablehook, _unless_late(sys.unraisablehook)
    try:
        thread = threading.Thread(target=run, name="template", daemon=True)
        thread.start()
        thread.join(seconds)
        while thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Late))
            thread.join(AGAIN_S)
    finally:
        sys.unraisablehook = told
    if given:
        return given[0]
    raise failed[0] if failed else _Late


def _unless_late(tell: Callable[[sys.UnraisableHookArgs], Any]) -> Callable[[sys.UnraisableHookArgs], Any]:
    """What is raised while an object is cleared away goes no further than the interpreter's note of it; an interruption
    that fell there is nobody's mistake, and the next one follows."""
    return lambda unraisable: None if unraisable.exc_type is _Late else tell(unraisable)

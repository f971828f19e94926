"""The `fallow` command: find the subcommand, load its module and nothing else, run it, and turn whatever goes wrong
into five lines and an exit code.

A subcommand is a module of this room with `options(parser)` and `run(args, out)`, a coroutine or not. Listing the
commands imports none of them, which is why `fallow --help` answers in a blink.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing `typing` takes longer than printing the help
if TYPE_CHECKING:
    from fallow.cli.output import Output

GROUPS: dict[str, dict[str, str]] = {
    "See it work": {
        "demo": "train, catch a cheat, pay, serve and chat, all on this machine",
    },
    "Be part of a network": {
        "up": "start a node of your own: a pool, or your door to one",
        "provide": "earn: let this machine work for a pool while it is idle",
        "join": "remember the pool that a ticket leads to",
    },
    "Get work done": {
        "train": "fine-tune a model on your text",
        "run": "run a typed workload on many inputs",
        "import": "read a file of another network: what it would become here",
        "serve": "keep a model answering, with an OpenAI-compatible door",
        "chat": "talk to a served model",
    },
    "Follow it": {
        "jobs": "list your jobs, or show one",
        "logs": "what happened in a job, from its start or as it goes",
        "results": "fetch what a job made",
        "cancel": "stop a job; what was done is paid, the rest comes back",
        "why": "who would take a job, who would not, and by how much",
    },
    "See the market and the money": {
        "offers": "what providers sell now",
        "wallet": "your credits: see, stake, send",
        "verify": "check a receipt yourself, offline",
    },
    "Get help": {
        "doctor": "check this machine and say what is missing",
        "explain": "what an error code means",
    },
}
COMMANDS: dict[str, str] = {name: line for group in GROUPS.values() for name, line in group.items()}

EXIT_OK, EXIT_USAGE, EXIT_REJECTED, EXIT_PEER, EXIT_UNAVAILABLE, EXIT_UNPROVEN = 0, 2, 3, 4, 5, 6
EXIT_BUG, EXIT_INTERRUPTED = 70, 130


def help_text() -> str:
    """What `fallow --help` prints."""
    lines = ["Fallow: idle computers working on AI, paid for verified work.", "", "Usage: fallow COMMAND [OPTIONS]"]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<9} {line}" for name, line in commands.items())]
    lines += [
        "",
        "Every command takes --help, --json (stable, on stdout) and --home DIR (or FALLOW_HOME; default ~/.fallow).",
        "New here? Try: fallow demo",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a command line (`sys.argv` by default); -> the exit code: 0 done, 2 wrong usage, 3 refused by the rules, 4 a
    peer misbehaved, 5 try again later, 6 not proven, 70 our bug, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    front: list[str] = []
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(help_text())
            return EXIT_OK
        if word == "--version":
            print(f"fallow {_version()}")
            return EXIT_OK
        front.append(word)
        if word == "--home" and words:
            front.append(words.pop(0))
    if not words and not front:
        print(help_text(), file=sys.stderr)
        return EXIT_USAGE
    return _dispatch(words[0] if words else "", [*front, *words[1:]])


def _version() -> str:
    from importlib.metadata import version

    return version("fallow")


def _dispatch(name: str, words: list[str]) -> int:
    from fallow.cli.output import Output
    from fallow.errors import FallowError

    out = Output(as_json="--json" in _own(words))
    try:
        return _run(name, words, out)
    except FallowError as error:
        out.error(error)
        return exit_code(error)
    except KeyboardInterrupt:
        out.say(out.when_interrupted)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _silence_stdout()
        return EXIT_OK
    except (Exception, ExceptionGroup) as error:  # noqa: BLE001 - the task boundary: a bug is reported, not thrown at people
        return _report_bug(error, out)


def _run(name: str, words: list[str], out: Output) -> int:
    import asyncio
    import importlib

    from fallow.cli.options import parser_of
    from fallow.errors import fail

    if name not in COMMANDS:
        raise fail("E2001", f"There is no command {name!r}.", cause=_did_you_mean(name))
    module = importlib.import_module(f"fallow.cli.{name}")
    parser = parser_of(name, COMMANDS[name], module.__doc__ or "")
    module.options(parser)
    if any(word in ("-h", "--help") for word in _own(words)):
        print(parser.format_help().rstrip())
        return EXIT_OK
    if getattr(module, "TAKES_REST", False):  # what follows -- is for somebody else's program
        args = parser.parse_args(_own(words))
        args.rest = words[len(_own(words)) + 1 :]
    else:
        args = parser.parse_args(words)
    answer = module.run(args, out)
    return int((asyncio.run(answer) if asyncio.iscoroutine(answer) else answer) or EXIT_OK)


def _own(words: list[str]) -> list[str]:
    """The words before a lone --."""
    return words[: words.index("--")] if "--" in words else words


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    return f"Did you mean: fallow {near[0]}" if near else "It is none of those that fallow --help lists."


def exit_code(error: Exception) -> int:
    """The exit code of an error's family."""
    from fallow.errors import InternalError, PeerFault, RejectedError, UnavailableError, UnprovenError, UsageError

    families = {
        UsageError: EXIT_USAGE,
        RejectedError: EXIT_REJECTED,
        PeerFault: EXIT_PEER,
        UnavailableError: EXIT_UNAVAILABLE,
        UnprovenError: EXIT_UNPROVEN,
        InternalError: EXIT_BUG,
    }
    return next((code for family, code in families.items() if isinstance(error, family)), EXIT_BUG)


def _report_bug(error: BaseException, out: Output) -> int:
    """A FallowError may come wrapped in the group of the task group it broke; anything else is our bug."""
    from typing import cast

    from fallow.errors import FallowError, InternalError

    inner = error
    while isinstance(inner, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", inner).exceptions[0]
    if isinstance(inner, FallowError):
        out.error(inner)
        return exit_code(inner)
    if isinstance(inner, KeyboardInterrupt):
        out.say(out.when_interrupted)
        return EXIT_INTERRUPTED
    out.error(InternalError("E9001", f"{type(inner).__name__}: {inner}", money="Unknown; fallow wallet tells."))
    out.trace(error)
    return EXIT_BUG


def _silence_stdout() -> None:
    """Keep the interpreter from complaining at exit about a pipe that is gone."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

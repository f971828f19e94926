"""The demo's network: a bank, a directory, a steward, a gateway and four providers, each a process of its own with a
home and keys of its own, speaking over real sockets. One provider is made to cheat."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fallow.adapters.runners import boxing, leash
from fallow.errors import FallowError, fail
from fallow.sdk.client import AsyncFallow

START_S = 60.0
STOP_S = 5.0
COMMAND = (sys.executable, "-c", "import sys; from fallow.cli.main import main; sys.exit(main())")
CHEAT = (sys.executable, "-m", "fallow.sim.cheating_node")
REIN = (sys.executable, "-I", "-S", leash.__file__)
"""Whatever happens to the demo, its processes end with it."""
WELCOME = "1000"
"""What a member has to spend: all of them are one person's, unlike the newcomers for whom the default is."""
CHEATS_PRICE = 450
"""A cheat undercuts the honest, who ask for 500: it can afford to."""


@dataclass
class Member:
    """One process of the network. `announced` is the JSON line that it printed when it was ready."""

    name: str
    home: Path
    command: tuple[str, ...]
    process: subprocess.Popen[str]
    announced: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def cheats(self) -> bool:
        """Whether it is no `fallow`, but one that lies."""
        return CHEAT[-1] in self.command

    async def wait_until_ready(self) -> None:
        """Read its first line. Raises UnavailableError E1801 with its last words when it ends instead."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        try:
            self.announced = json.loads(line)
        except ValueError:
            self.process.wait(STOP_S)
            words = (self.home / "log.txt").read_text("utf-8", "replace").strip().splitlines()[-8:]
            raise fail("E1801", f"The demo's {self.name} did not start.", cause=" | ".join(words)) from None
        if "error" in self.announced:
            raise fail("E1801", f"The demo's {self.name} did not start: {self.announced['error']['what']}")


class Network:
    """Starts and stops members; use as a context manager so that nothing outlives the demo. What is done there is its
    owner's own work, so it is done where no box can be had, too; without one anyway unless `boxed`."""

    def __init__(self, folder: Path, *, boxed: bool = True) -> None:
        self.folder = folder
        self.settings = f"unboxed = {str(not (boxed and boxing.strength()[0])).lower()}\n"
        self.members: list[Member] = []
        self.providers: list[Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, *words: str, config: str = "", within: tuple[str, ...] = ()) -> Member:
        """Start `fallow WORDS` with a home of its own; `within` is a command (its first word a full path) that runs
        another one somewhere else, such as in a network namespace."""
        return self._start(name, (*within, *COMMAND, *words, "--json"), config)

    def _start(self, name: str, command: tuple[str, ...], config: str) -> Member:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        if config:
            (home / "config.toml").write_text(config, "utf-8")
        member = Member(name, home, command, _spawn(home, command))
        self.members.append(member)
        return member

    def provide(self, number: int, ticket: str, threads: int = 1, cheat: str = "") -> Member:
        """Start a provider with `threads` threads a task, one that cheats if `cheat` says how."""
        config, words = f"[provider]\nthreads = {threads}\n{self.settings}", (ticket, "--bind", "127.0.0.1:0")
        if cheat:
            config += f"[provider.prices]\ntrain = {CHEATS_PRICE}\n"
            member = self._start(f"provider-{number}", (*CHEAT, cheat, *words), config)
        else:
            member = self.start(f"provider-{number}", "provide", *words, config=config)
        self.providers.append(member)
        return member

    def kill(self, member: Member) -> None:
        """`kill -9`: the process gets no chance to tidy up."""
        os.killpg(member.process.pid, signal.SIGKILL)
        member.process.wait()
        if member.process.stdout is not None:
            member.process.stdout.close()

    async def restart(self, member: Member) -> None:
        """Start a member again, in the home and with the words of before, and wait until it is ready."""
        member.process = _spawn(member.home, member.command)
        await member.wait_until_ready()

    def stop(self) -> None:
        """End every process, politely first."""
        for member in reversed(self.members):
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        for member in self.members:
            try:
                member.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(member.process.pid, signal.SIGKILL)
                member.process.wait()
            if member.process.stdout is not None:
                member.process.stdout.close()

    async def found(self, providers: int, cheats: int = 1, cheat: str = "lazy", threads: int = 1) -> AsyncFallow:
        """The whole network, the last `cheats` providers cheating as `cheat` says, with 1 to `threads` threads a task
        in turn; -> the steward's client, once all are on offer."""
        local = ("--bind", "127.0.0.1:0")
        directory = self.start("directory", "up", "--roles", "directory", *local)
        await directory.wait_until_ready()
        among_friends = ("--welcome", WELCOME, "--directory", directory.announced["address"])
        bank = self.start("bank", "up", "--roles", "bank", *among_friends, *local)
        await bank.wait_until_ready()
        ticket = bank.announced["ticket"]
        steward = self.start("steward", "up", "--roles", "steward", "--ticket", ticket, *local)
        gateway = self.start("gateway", "up", "--roles", "gateway", "--steward", str(steward.home), "--port", "0")
        workers = [
            self.provide(n, ticket, 1 + n % threads, cheat if n > providers - cheats else "")
            for n in range(1, providers + 1)
        ]
        for member in (steward, gateway, *workers):
            await member.wait_until_ready()
        client = AsyncFallow(steward.home)
        await self._all_on_offer(client, providers)
        return client

    async def _all_on_offer(self, client: AsyncFallow, providers: int) -> None:
        for _ in range(int(START_S / 0.2)):
            try:
                if len(await client.offers()) >= providers:
                    return
            except FallowError:
                pass  # still starting
            await asyncio.sleep(0.2)
        raise fail("E1201", f"Fewer than {providers} providers are on offer after {START_S:g} s.")

    def member(self, name: str) -> Member:
        """Raises KeyError for a name that was never started."""
        return {member.name: member for member in self.members}[name]


def _spawn(home: Path, command: tuple[str, ...]) -> subprocess.Popen[str]:
    environment = os.environ | {"FALLOW_HOME": str(home), "TOKENIZERS_PARALLELISM": "false"}
    with (home / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*REIN, str(os.getpid()), "0", "0", "", "", *command, "--log", "info"],
            stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip

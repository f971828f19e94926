"""What people get wrong, through the real command line against a real network: a coded error in five lines, an exit
code that says whose mistake it is, no traceback, and not one credit moved."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from tests.workloads.tiny import TEXT, make_model

import fallow
from fallow.cli.demo_net import COMMAND, Network
from fallow.errors import CODES, FallowError
from fallow.sdk.client import AsyncFallow
from fallow.wire.local import Wallet
from fallow.wire.tasks import Recipe

ENDS_S = 60
SOURCES = Path(fallow.__file__).parents[1]
EXIT_CODES = {"UsageError": 2, "RejectedError": 3, "PeerFault": 4, "UnavailableError": 5, "InternalError": 70}


@dataclass(frozen=True)
class Pool:
    """A network, and a folder with a model, a text and things that are neither."""

    folder: Path
    home: Path

    def run(self, *words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"FALLOW_HOME": str(home or self.home), "PYTHONPATH": str(SOURCES)}
        return subprocess.run(
            [*COMMAND, *map(str, words)], capture_output=True, text=True, env=environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, timeout=ENDS_S, check=False,
        )  # fmt: skip

    def wallet(self) -> Wallet:
        return asyncio.run(AsyncFallow(self.home).wallet())

    def refused(self, code: str, *words: str | Path, home: Path | None = None) -> str:
        """Run a command that must fail with `code`; -> what it said."""
        before = self.wallet()
        done = self.run(*words, home=home)
        check(done, code)
        assert self.wallet() == before
        return done.stderr


def check(done: subprocess.CompletedProcess[str], code: str) -> None:
    """The last five lines are the error's, and the exit code is its family's."""
    lines = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert [line.split(":")[0] for line in lines[-4:-1]] == ["Likely cause", "Money", "Next"], done.stderr
    assert lines[-1].split()[0] == code, done.stderr
    assert done.returncode == EXIT_CODES[CODES[code].family.__name__]


def furnish(folder: Path) -> None:
    make_model(folder / "model")
    (folder / "notes.txt").write_text(TEXT, "utf-8")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "short.txt").write_text("hello", "utf-8")
    (folder / "latin.txt").write_bytes("für die Katz\n".encode("latin-1") * 100)
    (folder / "chats.jsonl").write_text('{"messages": 3}\n{"x": 1}\n', "utf-8")
    (folder / "none").mkdir()
    (folder / "cut").mkdir()
    for file in (folder / "model").iterdir():
        data = file.read_bytes()
        (folder / "cut" / file.name).write_bytes(data[:-10] if file.suffix == ".safetensors" else data)
    (folder / "fake.gguf").write_bytes(b"GGUF" + bytes(60))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    folder = tmp_path_factory.mktemp("bad-input")
    furnish(folder)
    with Network(folder / "net") as network:
        client = await network.found(2, cheats=0)
        yield Pool(folder, client.home)


TRAIN = ("train", "--budget", "2", "--yes")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("E1701", (*TRAIN, "--model", "none", "--data", "notes.txt")),
        ("E1701", (*TRAIN, "--model", "notes.txt", "--data", "notes.txt")),
        ("E1701", (*TRAIN, "--model", "cut", "--data", "notes.txt")),
        ("E1701", (*TRAIN, "--model", "fake.gguf", "--data", "notes.txt")),
        ("E1701", ("serve", "none", "--budget", "1", "--yes")),
        ("E2003", (*TRAIN, "--model", "nowhere", "--data", "notes.txt")),
        ("E1702", (*TRAIN, "--model", "model", "--data", "latin.txt")),
        ("E1702", (*TRAIN, "--model", "model", "--data", "chats.jsonl")),
        ("E1703", (*TRAIN, "--model", "model", "--data", "empty.txt")),
        ("E1703", (*TRAIN, "--model", "model", "--data", "short.txt")),
        ("E1401", ("train", "--budget", "0.001", "--yes", "--model", "model", "--data", "notes.txt")),
        ("E1301", ("train", "--budget", "5000", "--yes", "--model", "model", "--data", "notes.txt")),
        ("E1203", (*TRAIN, "--max-price", "0.000001", "--model", "model", "--data", "notes.txt")),
        ("E2006", ("train", "--budget", "2", "--model", "model", "--data", "notes.txt")),
        ("E2001", (*TRAIN, "--verify", "hope", "--model", "model", "--data", "notes.txt")),
        ("E1002", ("run", "echo", "hello", "--budget", "much")),
        ("E1901", ("chat", "Hello")),
        ("E2002", ("results", "j_00")),
        ("E1301", ("wallet", "unbond", "5", "--yes")),
        ("E1303", ("wallet", "transfer", "5", "0x" + "11" * 20, "--yes")),
    ],
)
def test_it_is_refused_and_no_money_moves(pool: Pool, code: str, words: tuple[str, ...]) -> None:
    said = pool.refused(code, *words)
    moving = words[0] == "wallet" and code.startswith("E13")
    assert f"Money: Nothing {'moved: it is still' if moving else 'was spent.'}" in said


def test_data_that_turns_out_too_short_costs_nothing(pool: Pool) -> None:
    """Only a tokenizer can tell. The command line asks it before it asks anybody else; of a program's job a provider
    finds out, and is not paid for that."""
    (pool.folder / "scant.txt").write_text("apples and " * 30, "utf-8")
    said = pool.refused("E1703", *TRAIN, "--model", "model", "--data", "scant.txt", "--length", "150")
    assert "needs at least 300" in said
    before = pool.wallet()
    with pytest.raises(FallowError) as caught:
        asyncio.run(trained(pool))
    assert caught.value.code == "E1403"
    assert "needs at least 300" in f"{caught.value.what} {caught.value.cause}"
    assert "0.00 cr was paid" in caught.value.money
    assert pool.wallet() == before


async def trained(pool: Pool) -> None:
    async with AsyncFallow(pool.home) as client:
        recipe = Recipe(method="lora", sequence_tokens=150)
        job = await client.train(pool.folder / "model", pool.folder / "scant.txt", recipe, budget="2")
        await job.wait()


def test_two_nodes_want_one_home_or_one_port(pool: Pool, tmp_path: Path) -> None:
    pool.refused("E1807", "up", "--roles", "steward")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        pool.refused("E1804", "up", "--port", port, home=tmp_path / "new")
        pool.refused("E1804", "serve", "model", "--budget", "1", "--yes", "--port", port)


@pytest.mark.parametrize("content", [b"this is not TOML", b"colour = 'red'", b"quota = 'much'", b"\xff\xfe"])
def test_a_configuration_that_cannot_be_read(pool: Pool, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    pool.refused("E1001", "up", home=tmp_path)
    assert not (tmp_path / "keys").exists()


def test_nobody_sells(tmp_path: Path) -> None:
    """A pool without providers."""
    furnish(tmp_path)

    async def lonely() -> None:
        with Network(tmp_path / "net") as network:
            client = await network.found(0, cheats=0)
            lonely_pool = Pool(tmp_path, client.home)
            for words in (
                (*TRAIN, "--model", "model", "--data", "notes.txt"),
                ("run", "echo", "a", "--budget", "1", "-y"),
            ):
                await asyncio.to_thread(lonely_pool.refused, "E1201", *words)

    asyncio.run(lonely())


# a full disk ----------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` at `folder`: a tmpfs of its own."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.fail(f"a full disk needs the right to mount one: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def node_on(network: Network, ticket: str, home: Path) -> subprocess.Popen[str]:
    member = network.start(home.name, "up", "--roles", "steward", "--ticket", ticket, "--bind", "127.0.0.1:0")
    await member.wait_until_ready()
    return member.process


def test_the_disk_is_full(pool: Pool, tmp_path: Path) -> None:
    """A steward whose home lies on a disk that cannot hold the data: refused before any money moves, and the node lives
    on."""
    (tmp_path / "large.txt").write_bytes(b"All work and no play. " * 600_000)
    ticket = (pool.home / "network.txt").read_text("ascii").strip()

    async def full() -> None:
        with small_disk(tmp_path / "disk", "8m") as disk, Network(disk) as network:
            process = await node_on(network, ticket, disk / "steward")
            poor = Pool(pool.folder, disk / "steward")
            words = (*TRAIN, "--model", "model", "--data", tmp_path / "large.txt")
            await asyncio.to_thread(poor.refused, "E1603", *words)
            assert process.poll() is None
            assert (await asyncio.to_thread(poor.run, "run", "echo", "hello", "--budget", "1", "--yes")).returncode == 0

    asyncio.run(full())


def test_a_home_on_a_full_disk_starts_nothing(pool: Pool, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16k") as disk:
        for number in range(8):
            try:
                (disk / f"filler-{number}").write_bytes(bytes(4096))
            except OSError:
                break
        done = pool.run("up", "--port", "0", home=disk / "home")
    assert done.returncode != 0
    check(done, "E1603")

"""Doing what a page says, as its reader would: `python -m tests.docs.walk PAGE FOLDER`.

Each command is typed at a terminal of its own, in a home and a working folder made for the page; questions are answered
with "y". What runs until Ctrl-C is started and left running, and at the end of the page gets its Ctrl-C. Words in
capitals (TICKET, JOB, KEY, ADDRESS, 0xACCOUNT) are replaced by what earlier commands printed, as a reader does.

A block of YAML is a file of the reader's, called as its first line says.

Commands of `make` are not run: whether there is such a target is checked instead.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import ROOT, SHELL, Block, blocks

from fallow.node.config import load_config

PATIENCE_S = 120.0
STOP_S = 10.0
STAYS = re.compile(r"^fallow (up|provide)\b")
READY = ("The node is up", '"ready": true')
EXPORT = re.compile(r"^export (OPENAI_\w+)=(\S+)", re.MULTILINE)


class Wrong(Exception):
    """A page that does not do what it says."""


@dataclass
class Typed:
    """A command at a terminal: what is read from it, and how to end it. stdout is apart, as programs see it."""

    command: str
    process: subprocess.Popen[bytes]
    screen: int
    said: str = ""
    out: str = ""
    over: bool = False

    def read(self, until: tuple[str, ...] = ()) -> None:
        """Take what it says until it ends or says one of `until`; answer its questions."""
        assert self.process.stdout is not None
        streams, deadline = [self.process.stdout.fileno(), self.screen], time.monotonic() + PATIENCE_S
        while streams and not any(words in self.said + self.out for words in until):
            ready, _, _ = select.select(streams, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Wrong(f"{self.command}: nothing more came in {PATIENCE_S:g} s; so far:\n{self.said}{self.out}")
            for stream in ready:
                data = self._take(stream)
                if not data:
                    streams.remove(stream)
                elif stream == self.screen:
                    self.said += data
                    if data.rstrip().endswith("[y/N]"):
                        os.write(self.screen, b"y\n")
                else:
                    self.out += data

    def _take(self, stream: int) -> str:
        try:
            return os.read(stream, 65536).decode("utf-8", "replace")
        except OSError:  # the other side of a terminal is gone
            return ""

    def stop(self) -> None:
        """Ctrl-C; it must end soon, well, and without a traceback."""
        self.process.send_signal(signal.SIGINT)
        self.read()
        code = self.process.wait(STOP_S)
        self.close()
        if code != 0 or not re.search("has stopped|is closed", self.said):
            raise Wrong(f"{self.command}: after Ctrl-C it ended with {code}:\n{self.said}")

    def close(self) -> None:
        """Let go; a process that is still there is killed."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if not self.over:
            os.close(self.screen)
            self.over = True


@dataclass
class Reader:
    """Somebody who reads a page and types. Machines are folders: a home in each, one working folder for all."""

    folder: Path
    machine: str = "mine"
    running: list[Typed] = field(default_factory=list[Typed])
    words: dict[str, str] = field(default_factory=dict[str, str])
    last: str = ""
    source: Path = ROOT

    @property
    def home(self) -> Path:
        return self.folder / "homes" / self.machine

    def environment(self) -> dict[str, str]:
        """A reader's, with `fallow` and `python` on the path and nothing of this repository's developer."""
        self.home.mkdir(parents=True, exist_ok=True)
        names = ("LANG", "LC_ALL", "TMPDIR", "PGHOST", "PGUSER")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        exported = {name: value for name, value in self.words.items() if name.startswith("OPENAI_")}
        path = f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        source = f"{self.source / 'src'}:{self.source}"
        return kept | exported | {"HOME": str(self.home), "PATH": path, "PYTHONPATH": source, "TERM": "xterm"}

    def type(self, command: str) -> Typed:
        """Start a command at a terminal of its own."""
        screen, keyboard = pty.openpty()
        try:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}" if STAYS.match(command) else command], cwd=self.folder / "work",
                env=self.environment(), stdin=keyboard, stdout=subprocess.PIPE, stderr=keyboard, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(keyboard)
        return Typed(command, process, screen)

    def run(self, command: str) -> str:
        """Type a command, wait for its end or (for what stays) until it is ready; -> its stdout."""
        command = self.filled_in(command)
        began = time.monotonic()
        typed = self.type(command)
        if STAYS.match(command):
            self.running.append(typed)
            typed.read(READY)
            if not any(words in typed.said + typed.out for words in READY):
                raise Wrong(f"{command}: it ended with {typed.process.wait()}:\n{typed.said}{typed.out}")
            self._remember(typed.said + typed.out)
        else:
            try:
                typed.read()
                code = typed.process.wait()
            finally:
                typed.close()
            if code != 0 or "Traceback" in typed.said:
                raise Wrong(f"{command}: exit code {code}:\n{typed.said}{typed.out}")
        self.last = typed.out
        self.words |= dict(EXPORT.findall(typed.out))
        print(f"{time.monotonic() - began:6.1f} s  {command[:100]}", flush=True)
        return typed.out

    def _remember(self, said: str) -> None:
        if found := re.search(r"fallow1[a-z2-7]+", said):
            self.words["TICKET"] = found[0]
        if found := re.search(r'"address": "(\w+)"', said):
            self.words["ADDRESS"] = found[1]

    def filled_in(self, command: str) -> str:
        """The command with its words in capitals replaced."""
        if re.search(r"\bJOB\b", command):
            self.words["JOB"] = json.loads(self.quietly("fallow jobs --json"))["jobs"][0]["id"][:12]
        if re.search(r"\bKEY\b", command):
            self.words["KEY"] = json.loads(self.quietly("fallow serve --keys --json"))["keys"][-1]["prefix"]
        if "0xACCOUNT" in command:
            command = command.replace("0xACCOUNT", json.loads(self.quietly("fallow wallet --json"))["bank"])
        return re.sub(r"\b(TICKET|ADDRESS|JOB|KEY)\b", lambda found: self.words[found[1]], command)

    def quietly(self, command: str) -> str:
        """What a reader sees by looking."""
        done = subprocess.run(
            ["bash", "-c", command], env=self.environment(), cwd=self.folder / "work", capture_output=True, check=True
        )
        return done.stdout.decode()

    def wait_for_offers(self, count: int) -> None:
        """A provider measures its machine first; a reader looks again."""
        deadline = time.monotonic() + PATIENCE_S
        while len(json.loads(self.quietly("fallow offers --json"))["offers"]) < count:
            if time.monotonic() > deadline:
                raise Wrong(f"There are not {count} offers.")

    # blocks -----------------------------------------------------------------------------------------------------------

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.why_not:
            return
        if block.file:
            self.write(block)
            return
        match block.language:
            case "given":
                self.given(block.text)
            case "on":
                self.machine = block.text
            case language if language in SHELL:
                for command in block.commands():
                    self.command(command)
            case "python":
                script = self.folder / "work" / "snippet.py"
                script.write_text(block.text, "utf-8")
                self.run("python snippet.py")
            case "toml":
                (self.folder / "config.toml").write_text(block.text, "utf-8")
                load_config(self.folder)
            case "yaml":
                name = block.text.splitlines()[0].removeprefix("# ")
                (self.folder / "work" / name).write_text(block.text, "utf-8")
            case "text":
                self.compare(block.text)
            case other:
                raise Wrong(f"Nobody knows how to run {other!r}.")

    def command(self, line: str) -> None:
        """One line, which may hold several commands joined by &&."""
        for part in (part.strip() for part in line.split("&&")):
            name, *more = part.split()
            if name == "make":
                targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
                if not set(more) <= set(targets):
                    raise Wrong(f"{part}: the Makefile has no such target")
            elif name not in (".", "cd"):
                if name == "fallow" and more[0] in ("offers", "train", "run", "serve"):
                    self.wait_for_offers(sum(STAYS.match(one.command)[1] == "provide" for one in self.running))  # type: ignore[index]
                self.run(part)

    def write(self, block: Block) -> None:
        """Change the copy of the source as the page says."""
        assert self.source != ROOT, "only a copy is changed"
        path = self.source / block.file
        if block.language != "diff":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", "utf-8")
            return
        kinds = {
            mark: [line[1:] for line in block.text.splitlines() if line[:1] != other] for mark, other in ("-+", "+-")
        }
        before, after = ("\n".join(kinds[mark]) + "\n" for mark in "-+")
        text = path.read_text("utf-8")
        if text.count(before) != 1:
            raise Wrong(f"{block.file} does not hold, once:\n{before}")
        path.write_text(text.replace(before, after), "utf-8")

    def given(self, what: str) -> None:
        """Set up what a page presupposes, with the commands of the README."""
        if what == "a copy of the source":
            self.source = self.folder / "source"
            for name in ("src", "tests"):
                shutil.copytree(ROOT / name, self.source / name, ignore=shutil.ignore_patterns("*.pyc"))
            return
        if what.startswith("a pool"):
            self.machine = "elsewhere" if what == "a pool elsewhere" else self.machine
            self.run("fallow up --port 0" if what == "a pool elsewhere" else "fallow up")
            for number in (1, 2):
                self.run(f"fallow provide TICKET --home ~/.fallow-worker{number}")
            self.wait_for_offers(2)
            self.machine = "mine"
        if what.endswith("a finished job"):
            self.run("fallow run echo hello --budget 0.1")
        elif not what.startswith("a pool"):
            raise Wrong(f"Nobody knows how to set up {what!r}.")

    def compare(self, shown: str) -> None:
        """Output that a page shows has the shape of what came: the same words, with anything for `...`."""
        pattern = "".join(".*" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", shown.strip()))
        if not re.search(pattern, self.last, re.DOTALL):
            raise Wrong(f"The page shows\n{shown}\nbut what came is\n{self.last}")


def prepare(folder: Path) -> None:
    """A path with `fallow` and `python` on it."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name, words in (("fallow", "-m fallow.cli.main "), ("python", "")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n', "utf-8")
        script.chmod(0o755)


def main(page: Path, folder: Path) -> None:
    """Follow the whole page, then stop what runs. `folder`/work holds what the reader has: a model and a text."""
    prepare(folder)
    reader = Reader(folder)
    try:
        for block in blocks(page):
            try:
                reader.follow(block)
            except Wrong as error:
                raise Wrong(f"{page}, line {block.line}: {error}") from None
        while reader.running:
            reader.running[-1].stop()
            reader.running.pop()
    finally:
        for typed in reader.running:
            typed.close()
        shutil.rmtree(folder / "homes", ignore_errors=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Wrong as problem:
        sys.exit(str(problem))

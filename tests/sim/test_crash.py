from __future__ import annotations

from fallow.sim.crash import Ask, Flow, Process
from fallow.sim.event_log import Disk
from fallow.sim.network import Network, Reply
from fallow.sim.world import World
from fallow.wire.messages import Message, Ok


class Clerk(Process):
    """Writes down every request, then says so."""

    told: list[str]

    def on_start(self) -> None:
        self.told = []
        self.count = len(self.log.read("book"))

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        self.point()
        self.log.append("book", [b"a line"])
        self.point()
        self.told.append("said")
        reply(Ok())


def pair() -> tuple[World, Clerk, Clerk]:
    world = World(5)
    network = Network(world)
    clerks = [Clerk(world, network, name, name.encode() * 32) for name in "ab"]
    for clerk in clerks:
        clerk.start()
    return world, clerks[0], clerks[1]


def ask(world: World, one: Clerk, other: Clerk) -> Message | None:
    answers: list[Message | None] = []
    one.call(other.node, Ok(), 1_000, answers.append)
    world.run(lambda: bool(answers), 10_000_000)
    return answers[0]


def test_an_ordered_death_falls_before_or_after_the_write() -> None:
    for points, lines in ((1, 0), (2, 1)):
        world, one, other = pair()
        other.doom(points, 500)
        assert ask(world, one, other) is None
        world.run(lambda other=other: other.up, 10_000_000)
        assert other.count == lines
        assert not other.told
        assert other.deaths == 1
        assert ask(world, one, other) == Ok()


def test_whatever_was_not_flushed_is_gone() -> None:
    world, one, other = pair()
    other.disk = Disk(flushes=False)
    other.start()
    assert ask(world, one, other) == Ok()
    other.kill(10)
    world.run(lambda: other.up, 10_000_000)
    assert other.count == 0


def test_what_a_life_planned_ends_with_it() -> None:
    world, one, other = pair()
    done: list[str] = []
    one.later(1_000, lambda: done.append("later"))
    one.call(other.node, Ok(), 100, lambda _answer: done.append("answer"))
    one.kill(10)
    world.run(lambda: False, 100_000)
    assert one.up
    assert not done


def test_the_dead_are_not_killed_again() -> None:
    world, one, _ = pair()
    one.kill(10)
    one.kill(10)
    world.run(lambda: False, 100_000)
    assert one.deaths == 1


def test_a_flow_waits_for_calls_and_pauses() -> None:
    world, one, other = pair()
    seen: list[tuple[Message | None, int]] = []

    def flow() -> Flow:
        answer = yield Ask(other.node, Ok())
        seen.append((answer, world.elapsed_ms))
        yield 5_000
        other.up = False
        answer = yield Ask(other.node, Ok(), 700)
        seen.append((answer, world.elapsed_ms))

    one.follow(flow())
    world.run(lambda: len(seen) == 2, 100_000)
    (first, at_ms), (second, later_ms) = seen
    assert (first, second) == (Ok(), None)
    assert later_ms == at_ms + 5_700


def test_a_clock_may_be_wrong() -> None:
    world, one, _ = pair()
    one.skew_ms = -300
    assert one.now_ms == world.now_ms - 300

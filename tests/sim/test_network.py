from __future__ import annotations

from dataclasses import dataclass, field

from fallow.sim.network import Network, Reply
from fallow.sim.world import World
from fallow.wire.messages import Message, Ok

ONE, OTHER = b"1" * 32, b"2" * 32


@dataclass
class Echo:
    name: str
    node: bytes
    up: bool = True
    asked: list[int] = field(default_factory=list)

    def take(self, caller: bytes, request: Message, reply: Reply) -> None:
        self.asked.append(1)
        reply(request)


def pair() -> tuple[World, Network, Echo]:
    world = World(7)
    network, other = Network(world), Echo("other", OTHER)
    network.join(Echo("one", ONE))
    network.join(other)
    return world, network, other


def ask(world: World, network: Network, timeout_ms: int = 5_000) -> tuple[Message | None, int]:
    answers: list[tuple[Message | None, int]] = []
    begun = world.elapsed_ms
    network.call(ONE, OTHER, Ok(), timeout_ms, lambda answer: answers.append((answer, world.elapsed_ms - begun)))
    world.run(lambda: False, 10_000_000)
    assert len(answers) == 1
    return answers[0]


def test_a_call_is_answered_once_after_a_delay() -> None:
    world, network, _ = pair()
    answer, took_ms = ask(world, network)
    assert answer == Ok()
    assert 2 <= took_ms < 5_000


def test_what_is_lost_is_an_answer_of_none_in_time() -> None:
    world, network, other = pair()
    network.weather.loss = 1.0
    assert ask(world, network) == (None, 5_000)
    assert not other.asked


def test_a_packet_that_comes_twice_is_asked_twice_and_answered_once() -> None:
    world, network, other = pair()
    network.weather.twice = 1.0
    assert ask(world, network)[0] == Ok()
    assert len(other.asked) == 2


def test_a_cut_may_go_one_way() -> None:
    world, network, other = pair()
    network.weather.cuts.add((OTHER, ONE))
    assert ask(world, network) == (None, 5_000)
    assert len(other.asked) == 1, "the request came through, the answer did not"
    assert not network.reachable(ONE, OTHER)
    network.weather.clear_up()
    assert network.reachable(ONE, OTHER)
    assert ask(world, network)[0] == Ok()


def test_a_clog_holds_everything_back_and_loses_nothing() -> None:
    world, network, _ = pair()
    network.weather.clogs[ONE, OTHER] = world.now_ms + 3_000
    answer, took_ms = ask(world, network)
    assert answer == Ok()
    assert took_ms >= 3_000


def test_nobody_answers_who_is_down_or_unknown() -> None:
    world, network, other = pair()
    other.up = False
    assert ask(world, network)[0] is None
    network.peers.pop(OTHER)
    assert ask(world, network)[0] is None

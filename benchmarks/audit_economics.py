"""What the `audit` policy costs, and how many wrong answers survive it: executions per task, percent of wrong final
answers and honest accounts banned, on 8,000 tasks by 200 workers of which a share cheats together.

It runs the rules themselves (`fallow.rules.trust`), not a model of them, under the assumptions of the published
measurement: uniform assignment, equal speed, perfect collusion. Beside it, in the same run: plain replication with two
and three equal answers on every task, which is what the policy replaces.

    python benchmarks/audit_economics.py [--tasks N] [--seeds N]

Prints one JSON line per policy, share and kind of cheat, and writes them to `benchmarks/results/audit_economics.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path

from fallow.rules import trust
from fallow.rules.trust import Policy, Settled, Standing, Undecided, Vote

RESULTS = Path(__file__).parent / "results" / "audit_economics.json"
RIGHT, WRONG = b"right" * 6, b"wrong" * 6
POLICIES = {
    "audit (default)": trust.DEFAULT,
    "audit:probation=5,rate=0.05,quorum=3": Policy(5, 50_000, 3),
    "quorum of 2 everywhere": Policy(0, trust.RATE_ONE, 2),
    "quorum of 3 everywhere": Policy(0, trust.RATE_ONE, 3),
}
SHARES = (0.05, 0.2)
MODES = ("smart", "always")


class Market:
    """8,000 tasks on 200 workers by the rules of this module, assigned uniformly, as in the published measurements.
    Smart colluders are honest until they have passed probation, then always give the same wrong answer."""

    def __init__(self, policy: Policy, share: float, mode: str, seed: int) -> None:
        self.random, self.policy, self.mode = random.Random(seed), policy, mode
        self.workers = [n.to_bytes(20, "big") for n in range(200)]
        self.bad = set(self.workers[: int(200 * share)])
        self.standing = dict.fromkeys(self.workers, Standing())
        self.open: dict[bytes, dict[int, tuple[bytes, bytes]]] = {worker: {} for worker in self.workers}
        self.final: dict[int, bytes] = {}
        self.work = 0

    def answer(self, worker: bytes) -> bytes:
        self.work += 1
        lies = worker in self.bad and (
            self.mode == "always" or self.standing[worker].passed >= max(1, self.policy.probation)
        )
        return WRONG if lies else RIGHT

    def there(self) -> list[bytes]:
        return [worker for worker in self.workers if not self.standing[worker].banned]

    def do(self, task: int) -> None:
        worker = self.random.choice(self.there())
        answer, seed = self.answer(worker), self.random.randbytes(32)
        if trust.must_check(self.policy, self.standing[worker], seed) is None:
            self.final[task] = answer
            self.open[worker][task] = (seed, answer)
        else:
            self.check(task, worker, answer, seed)

    def check(self, task: int, worker: bytes, answer: bytes, seed: bytes) -> None:
        votes = [Vote(worker, answer)]
        queue = [account for account in trust.auditor_order(seed, self.there()) if account != worker]
        while not isinstance(result := trust.tally(votes, 0, self.policy.quorum), (Settled, Undecided)):
            account = queue.pop(0)
            votes.append(Vote(account, self.answer(account)))
        assert isinstance(result, Settled)
        self.final[task] = result.answer
        for account in result.right:
            self.standing[account] = self.standing[account]._replace(passed=self.standing[account].passed + 1)
        for account in result.wrong:
            self.ban(account)

    def ban(self, account: bytes) -> None:
        self.standing[account] = self.standing[account]._replace(banned=True)
        redo, self.open[account] = self.open[account], {}
        for task in redo:
            self.do(task)

    def close(self) -> None:
        """The last check of everybody, until nobody has unchecked claims that were made since it."""
        closed: dict[bytes, int] = {}
        while todo := [w for w in self.there() if len(self.open[w]) > closed.get(w, 0)]:
            for worker in todo:
                if self.standing[worker].banned or not self.open[worker]:
                    continue
                seeds = {task.to_bytes(32, "big"): seed for task, (seed, _) in self.open[worker].items()}
                task = int.from_bytes(trust.closing_pick(seeds), "big")
                seed, answer = self.open[worker].pop(task)
                self.check(task, worker, answer, seed)
                closed[worker] = len(self.open[worker])

    def unchecked(self, tasks: int) -> float:
        """Percent of wrong answers when nobody looks."""
        for task in range(tasks):
            self.do(task)
        return 100 * sum(answer != RIGHT for answer in self.final.values()) / tasks

    def run(self, tasks: int) -> tuple[float, float, int]:
        for task in range(tasks):
            self.do(task)
        self.close()
        wrong = sum(answer != RIGHT for answer in self.final.values())
        honest = sum(s.banned for w, s in self.standing.items() if w not in self.bad)
        return self.work / tasks, 100 * wrong / tasks, honest


def measure(name: str, policy: Policy, share: float, mode: str, tasks: int, seeds: int) -> dict[str, object]:
    runs = [Market(policy, share, mode, seed).run(tasks) for seed in range(1, seeds + 1)]
    return {
        "policy": name,
        "cheats": f"{share:.0%} {mode}",
        "executions_per_task": round(statistics.median(run[0] for run in runs), 3),
        "wrong_percent": round(statistics.mean(run[1] for run in runs), 4),
        "wrong_percent_max": round(max(run[1] for run in runs), 4),
        "honest_banned": statistics.median(run[2] for run in runs),
        "tasks": tasks,
        "seeds": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What auditing costs and what survives it.")
    parser.add_argument("--tasks", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for mode in MODES:
        for share in SHARES:
            for name, policy in POLICIES.items():
                rows.append(measure(name, policy, share, mode, given.tasks, given.seeds))
                print(json.dumps(rows[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

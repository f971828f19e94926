"""What the evidence of a receipt shows of an audit, to somebody who was not there: enough others gave the same, they
are the ones whom the bank's randomness draws, and where a sample was done again it is the sample that was drawn.

Defends against: auditors who were chosen, too few of them, a sample that was chosen. Does not defend against: a
requester that leased from nobody but friends, or conceals who else could have been drawn; one that is also the
provider, and signs claims until the draw pleases it."""

from __future__ import annotations

from fallow.kinds.registry import kind_named
from fallow.rules import trust
from fallow.rules.steward.check import Exhibit, Shown
from fallow.wire.claims import merkle_root, output_hash, task_id, task_leaf
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot


def shown(policy: trust.Policy, seen: Exhibit) -> Shown:
    """Whether what is seen is an audit by `policy`."""
    asked = {seen.provider, *seen.others, seen.sampled_by} - {b"", seen.drawn_for}
    ahead = set(seen.undrawn).difference(trust.after(seen.seed, asked, seen.undrawn, seen.drawn, seen.outside))
    if ahead:
        return Shown("", f"the draw names 0x{min(ahead).hex()} before those who checked")
    among = f"drawn by the bank's randomness among {len(asked | set(seen.undrawn))} accounts"
    if not seen.undrawn:
        among = "and nobody else could have been drawn, as the requester says"
    if by_stake := asked.intersection(seen.drawn):
        among += f" ({len(by_stake)} of them by stake among all of the pool)"
    if seen.sampled is not None:
        return _sample(policy, seen, among)
    if len(seen.others) + 1 < policy.quorum:
        return Shown("", f"{len(seen.others) + 1} equal answers, and the policy asks for {policy.quorum}")
    others = f"{len(seen.others)} other account{'s' if len(seen.others) > 1 else ''}"
    return Shown(f"the output was computed again by {others} with the same result, {among}")


def _sample(policy: trust.Policy, seen: Exhibit, among: str) -> Shown:
    assert seen.sampled is not None, "asked only of samples"
    chain = kind_named(seen.kind).claimed_chain(seen.task, seen.output) if seen.output is not None else None
    if chain is None or seen.output is None:
        return Shown("", "a sample of work that is no chain of links")
    links = chain.links(seen.task, seen.output)
    drawn = trust.draw_links(seen.seed, links, policy.links)
    check = chain.check(seen.task, seen.output, drawn)
    if check.task.units >= 1 << 63:
        return Shown("", "a sample of more work than there is")
    leaf = task_leaf(task_id(check.task), output_hash(check.expected), check.task.units)
    claim = decode(ClaimRoot, seen.sampled.claim.body)
    if (claim.root, claim.count) != (merkle_root([leaf]), 1):
        return Shown("", "the links that were done again are not those that were drawn, or gave something else")
    return Shown(f"{len(drawn)} of its {links} links were done again by another account with the same result, {among}")

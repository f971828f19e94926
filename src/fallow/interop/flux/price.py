"""What a Flux application costs there for a month, in US dollars, by Flux's list of 2026-07-22. Computed in doubles
and in the order of its own sums, since it rounds up to whole cents."""

from __future__ import annotations

import math

from fallow.interop.flux.form import TIERS, is_enterprise
from fallow.interop.tree import FieldMap

CPU_TENTH, RAM_100_MB, HDD_GB, PORT, SCOPE, STATIC_IP = 0.15, 0.05, 0.02, 2.0, 4.0, 2.0
LEAST = 0.99
CHEAP = 0.50
"""Below this for one instance, each further one costs this."""
DEAR_PORTS = frozenset([*range(1024), 8080, 8081, 8443, 6667])


def price_usd(spec: FieldMap) -> float:
    """For a specification that is in order."""
    totals = {"cpu": 0.0, "ram": 0.0, "hdd": 0.0}
    dear = 0
    for part in spec["compose"]:
        for name in totals:
            if part.get("tiered"):
                first, second, third = (part[name + tier] for tier in TIERS)
                totals[name] += (first + second + third) / 3
            else:
                totals[name] += part[name]
        dear += sum(port in DEAR_PORTS for port in part["ports"])
    total = totals["cpu"] * CPU_TENTH * 10 + totals["ram"] * RAM_100_MB / 100 + totals["hdd"] * HDD_GB
    if spec["nodes"] or is_enterprise(spec):
        total += SCOPE
    if spec["staticip"]:
        total += STATIC_IP
    total += dear * PORT
    price = math.ceil(total / 3 * 100) / 100
    further = spec["instances"] - 1
    if further > 2 and price < CHEAP:
        price += further * CHEAP
    elif further > 0:
        price = (math.ceil(price * further * 100) + math.ceil(price * 100)) / 100
    return max(price, LEAST)

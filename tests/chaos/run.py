"""`make chaos`: attacks installations of every kind until they have suffered so many faults, and says what came of it.

python -m tests.chaos.run [--faults 120] [--seed N] [--kind postgresql-http-local …]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from secrets import randbelow
from time import monotonic, sleep

from tests.chaos.faults import befall
from tests.chaos.judge import assert_nothing_lost
from tests.chaos.world import OPEN_JOBS, Kind, World, world

KINDS = (
    Kind("sqlite"),
    Kind("sqlite", http=True),
    Kind("postgresql"),
    Kind("postgresql", http=True),
    Kind("postgresql", launcher="slurm", pilots=2),
)
PAUSE_SECONDS = 0.6
"""Between two faults, on average."""
STALLED_SECONDS = 5.0
TICK_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """An attack that nothing was lost in."""

    kind: str
    seed: int
    faults: dict[str, int]
    told: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.faults.values())


def attack(kind: Kind, seed: int, faults: int, folder: Path, pause: float = PAUSE_SECONDS) -> Outcome:
    """Let an installation suffer so many faults while it works, then heal it, and see that nothing is lost."""
    chance, began = Random(seed), monotonic()
    with world(kind, folder, chance) as one:
        let_work(one, 0)
        while sum(one.faults.values()) < faults:
            befall(one)
            let_work(one, chance.expovariate(1 / pause))
        one.heal()
        told = one.told + assert_nothing_lost(one)
    return Outcome(str(kind), seed, dict(sorted(one.faults.items())), dict(sorted(told.items())), monotonic() - began)


def let_work(one: World, seconds: float) -> None:
    """Let so long pass, and then a task be done, if that comes within ``STALLED_SECONDS``."""
    began, done = monotonic(), None
    while monotonic() < began + STALLED_SECONDS:
        one.tend()
        if one.open_jobs() < OPEN_JOBS:
            one.submit()
        if monotonic() >= began + seconds:
            before, done = done, one.done()
            if before is not None and done > before:
                return
        sleep(TICK_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=120, help="of each kind of installation")
    parser.add_argument("--seed", type=int, default=randbelow(10**6))
    parser.add_argument(
        "--kind", nargs="*", choices=[str(kind) for kind in KINDS], default=[str(kind) for kind in KINDS]
    )
    options = parser.parse_args()
    total = 0
    for number, kind in enumerate(kind for kind in KINDS if str(kind) in options.kind):
        seed = options.seed + number
        print(f"{kind}, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = attack(kind, seed, options.faults, Path(folder))
        total += outcome.total
        print(json.dumps(vars(outcome), indent=1), flush=True)
    print(f"{total} faults, nothing lost")


if __name__ == "__main__":
    main()

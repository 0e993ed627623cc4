"""Run in a tree of its own, mutated or not: simulate seeds until one fails, and report it.

Prints one JSON object: `actors` (the folder of the code that ran), `seeds` (how many ran),
`invariant`, `detail` and `replay` of the failure, all empty if there was none.
"""

import json
import sys
from pathlib import Path

import actors
from chaos.simulator.batch import run_batch
from chaos.simulator.faults import parse_faults
from chaos.simulator.run import Plan


def main(first: str, seeds: str, faults: str) -> None:
    """Simulate `seeds` seeds from `first` on; the same runs as those of `synod sim`."""
    names = parse_faults(faults)
    plans = (Plan(seed, names) for seed in range(int(first), int(first) + int(seeds)))
    summary = run_batch(plans, jobs=1)
    failed = summary.failures[0] if summary.failures else None
    print(
        json.dumps(
            {
                "actors": str(Path(actors.__file__).parent),
                "seeds": summary.runs,
                "seed": failed.plan.seed if failed else None,
                "invariant": failed.invariant if failed else "",
                "detail": failed.detail[:400] if failed else "",
                "replay": failed.plan.command if failed else "",
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The fault suite: python -m tests.chaos [--only NAME ...] (or `make chaos`).

Runs the detect job on drawn images under each fault, compares with an undisturbed run and prints the
table; the exit code says whether every fault left every image once and as it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import image_faults, outcome, process_faults, store_faults
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage, set_up
from tests.swift import Swift

Fault = Callable[[Stage], Any]

ON_DISK: dict[str, Fault] = {
    "driver_killed": process_faults.driver_killed,
    "driver_killed_stored_proposals": process_faults.driver_killed_stored_proposals,
    "proposal_worker_killed": process_faults.proposal_worker_killed,
    "detector_killed": process_faults.detector_killed,
    "node_killed_another_joins": process_faults.node_killed_another_joins,
    "all_nodes_killed": process_faults.all_nodes_killed,
    "poison_images": image_faults.poison_images,
    "replaced_image": image_faults.replaced_image,
    "two_drivers": process_faults.two_drivers,
    "overwrite_killed": process_faults.overwrite_killed,
    "disk_full": process_faults.disk_full,
}
IN_STORE: dict[str, Fault] = {
    "store_restarted": store_faults.store_restarted,
    "store_500": store_faults.trouble("500", share=0.7),
    "store_503": store_faults.trouble("503"),
    "store_slow": store_faults.trouble("slow", seconds=4.0),
    "store_reset": store_faults.trouble("reset", share=0.7),
    "store_silent": store_faults.trouble("silent"),
    "store_down": store_faults.store_down,
}


def provoke(stage: Stage, faults: dict[str, Fault]) -> tuple[list[Outcome], list[str]]:
    """Run faults one after the other; returns what they came to, and what could not be told."""
    outcomes: list[Outcome] = []
    broken: list[str] = []
    for name, fault in faults.items():
        print(f"== {name}", flush=True)
        try:
            result = fault(stage)
        except (RuntimeError, AssertionError, TimeoutError) as error:
            traceback.print_exc()
            broken.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if isinstance(result, str):
            print(f"   left out: {result}", flush=True)
            continue
        for one in result if isinstance(result, list) else [result]:
            print(f"   {'right' if one.right else 'WRONG'} {one.as_json()}", flush=True)
            outcomes.append(one)
    return outcomes, broken


def main() -> int:
    """Run the faults that were asked for."""
    known = ON_DISK | IN_STORE
    parser = argparse.ArgumentParser(
        prog="tests.chaos", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), metavar="NAME")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    options = parser.parse_args()
    wanted = {name: fault for name, fault in known.items() if name in options.only}
    lacking = Swift.missing() if wanted.keys() & IN_STORE.keys() else None
    if lacking:
        print(f"without the store's faults: {lacking}", flush=True)
        wanted = {name: fault for name, fault in wanted.items() if name not in IN_STORE}
    with set_up(options.images, store=bool(wanted.keys() & IN_STORE.keys())) as stage:
        outcomes, broken = provoke(stage, wanted)
    table = outcome.table(outcomes)
    print(f"\n{table}\n" + "\n".join(f"NOT DONE {line}" for line in broken))
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        options.json.write_text(json.dumps([one.as_json() for one in outcomes], indent=2) + "\n")
    return 0 if outcomes and not broken and all(one.right for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The fault suite: python -m tests.chaos [--only NAME ...] (or `make chaos`).

Runs the detect, propose and train jobs on drawn images under each fault, compares the output with an
undisturbed run and prints a table. The exit code is 0 if each output holds every image once, with the
expected row, or the expected network.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import (
    head_faults,
    image_faults,
    node_faults,
    object_store_faults,
    process_faults,
    reuse_faults,
    stopped_drivers,
    store_faults,
    training_faults,
)
from tests.chaos.outcome import Outcome, format_table
from tests.chaos.stage import Stage, set_up_stage
from tests.swift import Swift

Fault = Callable[[Stage], Any]

ON_DISK: dict[str, Fault] = {
    "driver_killed": process_faults.kill_driver,
    "driver_killed_stored_proposals": process_faults.kill_driver_with_stored_proposals,
    "driver_killed_reuse": reuse_faults.kill_reusing_driver,
    "node_killed_propose_reuse": reuse_faults.kill_node_of_reusing_run,
    "proposal_worker_killed": process_faults.kill_proposal_worker,
    "detector_killed": process_faults.kill_detector,
    "node_killed_another_joins": process_faults.kill_node_and_add_another,
    "all_nodes_killed": process_faults.kill_all_nodes,
    "poison_images": image_faults.poison_images,
    "replaced_image": image_faults.replace_image,
    "two_drivers": process_faults.run_two_drivers,
    "overwrite_killed": process_faults.kill_overwriting_driver,
    "disk_full": process_faults.fill_disk,
    "driver_stopped": stopped_drivers.stop_driver,
    "driver_stopped_overwritten": stopped_drivers.stop_overwritten_driver,
    "node_preempted": node_faults.preempt_node,
    "nodes_terminated": node_faults.terminate_nodes,
    "node_stopped": node_faults.stop_node,
    "clocks_apart": node_faults.shift_clocks,
    "head_restarted": head_faults.restart_head,
    "head_restarted_redis": head_faults.restart_head_with_redis,
    "head_lost": head_faults.lose_head,
    "object_store_full": object_store_faults.fill_object_store,
    "spilling_folder_full": object_store_faults.fill_spilling_folder,
    "training_driver_killed": training_faults.kill_driver,
    "training_driver_stopped": training_faults.stop_driver,
    "training_two_drivers": training_faults.run_two_drivers,
    "training_two_equal_drivers": training_faults.run_two_equal_drivers,
    "training_overwrite_killed": training_faults.kill_overwriting_driver,
}
IN_STORE: dict[str, Fault] = {
    "store_restarted": store_faults.restart_store,
    "store_500": store_faults.build_store_fault("500", share=0.7),
    "store_503": store_faults.build_store_fault("503"),
    "store_503_reuse": reuse_faults.disturb_store_of_reusing_run,
    "store_slow": store_faults.build_store_fault("slow", seconds=4.0),
    "store_reset": store_faults.build_store_fault("reset", share=0.7),
    "store_silent": store_faults.build_store_fault("silent"),
    "store_lists_late": store_faults.list_late,
    "store_down": store_faults.stop_store,
    "training_store_down": training_faults.stop_store,
}


def provoke_faults(stage: Stage, faults: dict[str, Fault]) -> tuple[list[Outcome], list[str]]:
    """Run faults one after the other; returns their outcomes and the errors of those without one."""
    outcomes: list[Outcome] = []
    errors: list[str] = []
    for name, fault in faults.items():
        print(f"== {name}", flush=True)
        try:
            result = fault(stage)
        except (RuntimeError, AssertionError, TimeoutError) as error:
            traceback.print_exc()
            errors.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if isinstance(result, str):
            print(f"   skipped: {result}", flush=True)
            continue
        for outcome in result if isinstance(result, list) else [result]:
            verdict = "right" if outcome.is_right else "WRONG"
            print(f"   {verdict} {outcome.to_json()}", flush=True)
            outcomes.append(outcome)
    return outcomes, errors


def main() -> int:
    """Run the requested faults, print the table and return the exit code."""
    all_faults = ON_DISK | IN_STORE
    parser = argparse.ArgumentParser(
        prog="tests.chaos", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=all_faults,
        default=list(all_faults),
        metavar="NAME",
        help="faults to run; all by default",
    )
    parser.add_argument("--images", type=int, default=300, help="number of drawn images")
    parser.add_argument("--json", type=Path, help="output file for the outcomes")
    parser.add_argument("--markdown", type=Path, help="output file for the table")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started ends too
    faults = {name: fault for name, fault in all_faults.items() if name in options.only}
    why_no_store = Swift.find_obstacle() if faults.keys() & IN_STORE.keys() else None
    if why_no_store:
        print(f"skipping the faults of the store: {why_no_store}", flush=True)
        faults = {name: fault for name, fault in faults.items() if name not in IN_STORE}
    with set_up_stage(options.images, store=bool(faults.keys() & IN_STORE.keys())) as stage:
        outcomes, errors = provoke_faults(stage, faults)
    table = format_table(outcomes)
    print(f"\n{table}\n" + "\n".join(f"NO OUTCOME {line}" for line in errors))
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        records = [outcome.to_json() for outcome in outcomes]
        options.json.write_text(json.dumps(records, indent=2) + "\n")
    is_right = outcomes and all(outcome.is_right for outcome in outcomes)
    return 0 if is_right and not errors else 1


if __name__ == "__main__":
    sys.exit(main())

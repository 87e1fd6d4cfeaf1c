"""Runs a script whose Ray driver connects to a certain node.

    python -m tests.chaos.on_node NAME python SCRIPT ...

On a machine with several nodes Ray connects drivers to the head. On a real cluster a driver runs where its
machine's node is, which is not the head if the job was submitted with resources that only other nodes have.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray._private import services


def main() -> None:
    """Run the script as Python would."""
    name, _, script, *arguments = sys.argv[1:]
    connect = services.get_node_to_connect_for_driver
    services.get_node_to_connect_for_driver = functools.partial(_connect, connect, name)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _connect(connect: Callable[..., Any], name: str, gcs_client: Any, **options: Any) -> Any:
    return connect(gcs_client, **(options | {"node_name": name}))


if __name__ == "__main__":
    main()

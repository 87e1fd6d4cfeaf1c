"""Asks SkyPilot itself about cluster/skypilot.yaml, in a virtual environment of its own.

    nice .venv/bin/python -m tests.cluster.check_skypilot

SkyPilot pins other versions than the project, so its package cannot be in `dev`. It needs a package index and
takes minutes; test_skypilot.py checks the fields against the documentation instead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "0.14.1"
ASK = """
import copy, sys, yaml, sky
config = yaml.safe_load(open(sys.argv[1]))
config["secrets"] = dict.fromkeys(config["secrets"], "given on the command line")
task = sky.Task.from_yaml_config(copy.deepcopy(config))  # it empties what it is given
print(f"{task.name}: {task.num_nodes} nodes of {task.resources}")
config["resources"]["accelerator"] = config["resources"].pop("accelerators")
try:
    sky.Task.from_yaml_config(config)
except Exception as error:
    print(f"a misspelled field: {str(error).splitlines()[0]}")
else:
    sys.exit("SkyPilot accepts a misspelled field")
"""


def main() -> None:
    """Install SkyPilot, read the file with it, and exit with 1 if it rejects the file."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet", f"skypilot=={VERSION}"]
        subprocess.run(install, check=True)
        ask = [python, "-c", ASK, str(ROOT / "cluster" / "skypilot.yaml")]
        sys.exit(subprocess.run(ask, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()

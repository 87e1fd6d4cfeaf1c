"""Entry points, one per job: thin scripts over `pipeline` whose options are dataclasses.

Each runs as `python jobs/X.py`, as `python -m jobs.X` and under `ray job submit`.
"""

import sys

if sys.argv[:1] == ["-m"]:  # python -m jobs.X; a script imports the check by itself
    from jobs.installation import check

    check()

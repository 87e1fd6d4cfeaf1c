"""Entry points, one per job: thin scripts over `pipeline` whose options are dataclasses.

Each runs as `python jobs/X.py`, as `python -m jobs.X` and under `ray job submit`.
"""

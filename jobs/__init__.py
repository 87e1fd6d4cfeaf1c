"""Entry points, one per job; each is a thin script over `pipeline` whose options are a dataclass.

Each runs as `python jobs/X.py`, as `python -m jobs.X` and under `ray job submit`.
"""

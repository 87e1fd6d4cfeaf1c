"""Files in formats whose readers a crafted file can crash or exhaust: read in a child process with limits.

`child_process` starts `python -m pipeline.untrusted`, which parses one file with `proposal_files` and writes
plain arrays. The child loads neither numba nor torch, and has no credentials in its environment.
"""

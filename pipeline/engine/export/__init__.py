"""The export run: by shards here or in Ray tasks, then joined into whole files."""

"""Plans of runs: a sample of the work, measured in processes of this machine without starting Ray."""

"""Detection over a manifest: the run, the tasks that read images, and the pool of detector actors."""

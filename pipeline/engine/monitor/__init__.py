"""What a run shows while it works: progress, the load of its stages, metrics for Prometheus."""

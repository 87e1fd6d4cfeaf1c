"""The only package that imports ray: cluster, shard runner, the runs over shards, training, progress.

May import every other station. Whatever a worker needs of torch is imported inside the worker, so that
the driver and the proposal workers stay free of it.
"""

"""The only package that imports ray: cluster, shard runner, runs over shards, training, progress.

It may import every other station. Workers import torch inside their own process, so the driver and the
proposal workers stay free of it.
"""

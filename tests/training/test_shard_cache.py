"""The cache of shards: one reader for many threads, old shards dropped."""

import threading

from pipeline.training.shard_cache import ShardCache
from tests.training.training_dataset import open_drawn_datasets


def test_the_cache_reads_a_shard_once_for_many_threads_and_drops_old_shards(tmp_path):
    datasets, _ = open_drawn_datasets(tmp_path)
    reads = []

    class Counting:
        def read(self, shard):
            reads.append(shard)
            return datasets[0].read(shard)

    cache = ShardCache([Counting()], size=2)
    threads = [threading.Thread(target=cache.get, args=(0, 0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [0]
    for shard in (1, 2, 0):
        cache.get(0, shard)
    assert reads == [0, 1, 2, 0]

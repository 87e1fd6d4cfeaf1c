"""Work over shards on Ray: the loop, its queue, its retries."""

"""Work over shards on Ray: the driver's loop, its queue, its retries."""

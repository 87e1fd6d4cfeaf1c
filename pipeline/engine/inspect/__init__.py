"""Checks of a dataset: signatures of all images as runs over shards, then duplicates, counts and a report."""

"""The analysis run: matches, a part per shard of the detections, and the reductions over them.

`run` decides where it works: in this process for a small dataset, without loading ray, else in Ray tasks.
"""

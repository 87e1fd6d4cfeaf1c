"""What the Parquet says: average precision, proposal recall, reports, exports.

May import what stands to its left, but needs no torch; never ray.
"""

"""Datasets read into manifest rows: one file per format, with one function that opens a `Dataset`.

May import `errors`, `geometry`, `imaging`, `schema`, `storage`, `uris`, `manifests`; never torch or ray.
"""

"""Datasets read into manifest rows: one file per format, each a function that yields `ManifestRow`.

May import `errors`, `boxes`, `images`, `schema`, `storage`, `manifest`; never torch or ray.
"""

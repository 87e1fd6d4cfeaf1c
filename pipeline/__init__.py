"""Dataset-wide Fast R-CNN: each station of the data flow is a folder or a module.

Data flows from left to right: `sources`, `shards`, `proposals`, `detector`, `training`, `runs`, `analysis`;
`engine` runs them on Ray. A station imports only stations to its left and the modules beside this file, such
as `errors`, `geometry`, `schema`, `storage` and `manifests`. `tests/test_imports.py` enforces this.
"""

__version__ = "0.1.0"

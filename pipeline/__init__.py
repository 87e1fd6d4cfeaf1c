"""Dataset-wide Fast R-CNN: each station of the data's way is a folder or a module of its own.

Data goes left to right: `sources`, `shards`, `proposals`, `detector`, `training`, `analysis`; `engine`
drives them on Ray. A station imports only what stands to its left, and the modules beside this file
(`errors`, `boxes`, `images`, `schema`, `storage`, `manifest`). `tests/test_imports.py` keeps that true.
"""

__version__ = "0.1.0"

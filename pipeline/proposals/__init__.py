"""Selective search (Uijlings et al., IJCV 2013): regions proposed as boxes, best first.

May import `errors`, `boxes`, `images`, `storage`, numpy and numba; never torch, ray or what stands to the
right.
"""

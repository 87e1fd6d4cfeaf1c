"""Scores what runs wrote: average precision, proposal recall, comparison of two runs, tables and plots.

May import the stations to its left, but needs no torch; never ray.
"""

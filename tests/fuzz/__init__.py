"""The fuzz suite: damaged and crafted inputs of every kind, and what the project makes of them.

A target writes an input, changed at random places, into a folder, reads it as the jobs do, and knows what
must hold of an answer. Every case is a function of its kind, the seed and its number.
"""

"""Formats of other tools: one file each, which writes detections or annotations in that format."""

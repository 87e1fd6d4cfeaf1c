"""The static HTML report: galleries of sampled images, charts as inline SVG, pages.

Every count of the report leads to a page of the images behind it. May import `analysis` and what it may
import; never torch or ray.
"""

"""The networks that Fast R-CNN builds on, one file per family; `catalog` lists them without torch."""

"""The networks that Fast R-CNN stands on, one file per family; `catalog` lists them without torch."""

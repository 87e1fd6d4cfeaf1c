"""What a dataset holds and what is wrong with it: signatures of images, duplicates, suspicious boxes."""

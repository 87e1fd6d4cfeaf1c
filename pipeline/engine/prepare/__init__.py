"""Reading a dataset's files in Ray tasks, for datasets of thousands of files or millions of images."""

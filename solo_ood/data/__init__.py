"""Data that needs no download, and the tail of any labelled data set."""

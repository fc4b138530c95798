"""Data sets: their layouts, labels and images, and which of these are rare."""

"""Detectors of rare images: fitted on embeddings, by exemplars, and by regions of these."""

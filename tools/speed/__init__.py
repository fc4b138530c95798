"""Sections of ``tools/bench.py``, one a module."""

"""Sections of ``scripts/bench.py``, one a module."""

"""Stages of ``tools/test_upstream.py``, one a module."""

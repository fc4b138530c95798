"""Stages of ``scripts/test_upstream.py``, one a module."""

"""Parts of ``scripts/compatibility.py``, one a module."""

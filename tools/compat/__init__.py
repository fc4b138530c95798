"""Parts of ``tools/compatibility.py``, one a module."""

"""Which solo-learn this project runs with, and what is offered to it: cases for pytest.

``hosts.py`` has the rows and ``runs.py`` the columns of docs/compatibility.md. ``test_runs.py``
runs every pair; ``test_series.py`` judges the patches for solo-learn's main branch. noxfile.py
makes the environments.
"""

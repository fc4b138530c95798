"""Every solo-learn of ``hosts.py`` does every run of ``runs.py``, on the CPU and on real digits."""

from __future__ import annotations

import pytest

from matrix import installed, results
from matrix.program import Failed
from matrix.row import make_row
from matrix.runs import RUNS
from solo_ood.errors import UserError


def test_run(host, column, fresh, record_property):
    run = RUNS[column]
    try:
        cells = results.current(host.key, installed.state(host))
        kept = cells.get(column, {})
        if kept.get("result") == "yes" and not fresh:
            return record_property("note", f"passed on {kept['date']} with the same versions")
        row = make_row(host)
        if run.from_checkpoint and not row.has_checkpoint():
            RUNS["pretrain"].judge(row)
        note = run.judge(row)
    except UserError as error:
        pytest.fail(str(error), pytrace=False)
    except Failed as failure:
        results.keep(host.key, column, "no", f"`{failure}`".replace("|", "\\|"))
        pytest.fail(str(failure), pytrace=False)
    results.keep(host.key, column, "yes", note)
    if note:
        record_property("note", note)

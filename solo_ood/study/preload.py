"""What every cell imports: loaded once, by the process that the cells are forked from."""

import lightning.pytorch  # noqa: F401  (loaded for the forks)
import sklearn.linear_model  # noqa: F401  (the same)

import solo_ood.evaluation.evaluate
import solo_ood.runs.report
import solo_ood.study.trained_rows
from solo_ood.errors import UserError
from solo_ood.host import installed
from solo_ood.host.quiet import ignore_foreign_warnings

ignore_foreign_warnings()
try:
    if installed.generation() == "release":
        import solo_ood.training.release_programs  # noqa: F401  (the same)
except UserError:  # each cell says so
    pass

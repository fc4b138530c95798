"""Whether a run has enough samples for its detector: to flag any, and to have neighbours."""

from __future__ import annotations

import math

from solo_ood.errors import UserError
from solo_ood.settings.schema import OODConfig, samples_before_first_flag


def check_samples(ood: OODConfig, fresh: int, rows: int, batches: float) -> None:
    """Raise ``UserError`` unless a run can flag anything.

    Args:
        ood: the checked configuration.
        fresh: samples of all processes from ``start`` to the run's end.
        rows: samples of one batch of all processes.
        batches: of the whole run.
    """
    needed = samples_before_first_flag(ood) + rows
    if fresh < needed:
        raise UserError(
            "samples of the run",
            expected=f"at least {needed} after ood.start={ood.start}, until scorer and threshold "
            "are ready and one more batch can be flagged",
            got=f"{fresh} ({batches:.0f} batches of {rows} in all)",
            remedy="Train longer, lower ood.scorer.min_samples and ood.threshold.n, or "
            "set ood.enabled=false.",
        )


def check_neighbours(ood: OODConfig, samples: int) -> None:
    """Raise ``UserError`` if the k-NN's reference has too few rows of other samples.

    Rows of the sample itself are left out. In epochs that show each sample once, at most
    ceil(N / samples) of the N rows are its own.

    Args:
        ood: the checked configuration.
        samples: distinct ones of the training data.
    """
    scorer = ood.scorer
    if scorer.name != "knn" or scorer.k is None or ood.queue.store == "crops" or samples < 1:
        return  # null is 1 % of the rows, and kept crops are a new sample each time
    most = scorer.n_reference - math.ceil(scorer.n_reference / samples)
    if scorer.k > most:
        raise UserError(
            "ood.scorer.k",
            expected=f"at most {most}: of the {scorer.n_reference} rows that the scorer remembers "
            f"of {samples} training samples, those of the sample itself are left out",
            got=scorer.k,
            remedy="Lower ood.scorer.k, or raise ood.scorer.n_reference.",
        )

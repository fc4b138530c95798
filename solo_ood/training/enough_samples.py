"""Whether a run has enough samples: to flag any, to have neighbours, to replay in its steps."""

from __future__ import annotations

import math

from solo_ood.errors import UserError
from solo_ood.selection.self_check import MIN_REPLAY_SHARE
from solo_ood.settings.block import flag_rate
from solo_ood.settings.schema import OODConfig, replay_rows, samples_before_first_flag


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


def check_replays(ood: OODConfig, batch_size: int) -> None:
    """Raise ``UserError`` if the flagged samples cannot fill the replays, however they come.

    A flag enters the queue once and is drawn ``max_replays`` times at most. At the end of a run a
    warning says how it was.

    Args:
        ood: the checked configuration.
        batch_size: rows of one process and step.
    """
    queue, band = ood.queue, ood.threshold
    rows, most = replay_rows(ood, batch_size), queue.max_replays
    capped = queue.max_replays_per_run is not None or queue.max_replays_per_epoch is not None
    if rows == 0 or most is None or capped or ood.mix.ratio_end is not None:
        return
    rate = float(flag_rate(band.percentile, band.upper_percentile))
    share = most * rate * batch_size / rows
    if share < MIN_REPLAY_SHARE:
        raise UserError(
            "replay",
            expected=f"rows in at least {MIN_REPLAY_SHARE:.0%} of the steps",
            got=f"at most {share:.0%}: {rate:.3g} of the stream is flagged, a sample is drawn at "
            f"most {most} times, and a step of {batch_size} rows takes {rows} replays",
            remedy="Lower ood.mix.ratio or ood.threshold.percentile, or raise "
            "ood.queue.max_replays (null = no limit).",
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

"""``solo-ood measure``: how well detectors find the rare images of labelled data."""

from __future__ import annotations

from collections.abc import Callable

from solo_ood.benchmark.measure import TableRow
from solo_ood.benchmark.options import MeasureOptions
from solo_ood.benchmark.request import read_request
from solo_ood.benchmark.result_files import report
from solo_ood.benchmark.scoring import embed_splits, score_pairs
from solo_ood.embedding.devices import is_first_process


def measure_detectors(
    options: MeasureOptions, show: Callable[[str], None] = print
) -> list[TableRow]:
    """Measure the detectors and write table, pictures and ``report.html``.

    Everything that can be checked is checked before anything is embedded. The output folder gets
    the table when all of it is there, then the pictures: one that fails costs nothing but itself.

    Returns:
        the rows of the table; ``[]`` on all processes but the first.

    Raises:
        UserError: for bad data, options, networks or weights.
    """
    request = read_request(options, show)
    pairs = embed_splits(request)
    if not is_first_process():
        return []
    results = score_pairs(request, pairs, show)
    return report(request, results, show)

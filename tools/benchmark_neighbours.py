"""Exact k-th neighbours beside those of faiss: CPU seconds, recall, and how far the scores are off.

``python tools/benchmark_neighbours.py`` on the features of ``benchmark_rank.py``; needs
``solo-ood[benchmark]``. The seconds are of one core, for 100,000 queries, from fewer of them.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from benchmark_rank import features

from solo_ood.detection.scorers import kth_similarity
from solo_ood.pages import markdown

PER = 100_000  # queries


def timed(ask: Callable[[], Any], queries: int) -> tuple[float, Any]:
    """Return the CPU seconds for ``PER`` queries, and what was found."""
    begin = time.process_time()
    found = ask()
    return (time.process_time() - begin) * PER / queries, found


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--references", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--probes", type=int, nargs="+", default=[4, 16, 64])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    count = asked.references
    k = max(2, count // 100)  # as the detector has it
    rows = features(count + asked.queries, asked.dim)
    rows = rows[np.random.default_rng(1).permutation(len(rows))]
    reference, queries = rows[:count], rows[count:]
    print(markdown.head([f"{count:,} x {asked.dim}, k = {k}", "CPU s", "recall", "off at most"]))
    seconds, exact = timed(
        lambda: kth_similarity(torch.from_numpy(queries), torch.from_numpy(reference), k),
        len(queries),
    )
    print(markdown.row(["exact", f"{seconds:.0f}", "1", "0"]), flush=True)
    few = queries[:200]
    right = np.argpartition(few @ reference.T, count - k, axis=1)[:, count - k :]
    index = faiss.index_factory(
        asked.dim, f"IVF{4 * int(count**0.5)},Flat", faiss.METRIC_INNER_PRODUCT
    )
    index.train(reference)
    index.add(reference)
    for probes in asked.probes:
        index.nprobe = probes
        seconds, (similar, found) = timed(lambda: index.search(queries, k), len(queries))
        hits = [len({*a} & {*b}) / k for a, b in zip(found[: len(few)].tolist(), right.tolist())]
        off = np.abs(similar[:, -1] - exact).max()
        cells = [f"faiss IVF, {probes} probes", f"{seconds:.0f}", f"{np.mean(hits):.3f}"]
        print(markdown.row([*cells, f"{off:.3f}" if off < 2 else "not all found"]), flush=True)


if __name__ == "__main__":
    main()

"""``solo-ood rank``: from a folder of frames to a list of rare scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from solo_ood.console import counting_bar
from solo_ood.detection.boxes import Box
from solo_ood.detection.feats import Feats, feats_of
from solo_ood.embedding.devices import is_first_process
from solo_ood.embedding.extract import Embedded, embed
from solo_ood.files import atomic
from solo_ood.files.text import printable
from solo_ood.mining import audit, output, page
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.evidence import box_in_image, score_regions
from solo_ood.mining.exemplars import embed_exemplars
from solo_ood.mining.options import RankOptions
from solo_ood.mining.ranking import Ranking, build
from solo_ood.mining.request import Request, read_request
from solo_ood.mining.scenes import Scenes, choose, usual_distance


@dataclass(frozen=True)
class Scored:
    """The images that could be embedded, and their scores.

    Attributes:
        embedded: M of them.
        scores: (M,), higher = rarer.
        cells: (M, 4) of the best regions; ``None`` = whole pictures were looked at.
    """

    embedded: Embedded
    scores: np.ndarray
    cells: np.ndarray | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The M files."""
        return self.embedded.split.paths


def rank_frames(options: RankOptions, show: Callable[[str], None] = print) -> Ranking | None:
    """Rank the images and write the lists, pictures and ``report.html``.

    Everything that can be checked is checked before anything is embedded.

    Returns:
        the list; ``None`` on all processes but the first.

    Raises:
        UserError: for bad data, options, exemplars, networks or weights.
    """
    request = read_request(options, show)
    frames, cfg = request.frames, request.options.embedding
    embedded = embed(frames.split, request.embedder, cfg, frames.root, "frames", request.size)
    known = None
    if request.exemplars is not None and request.detector.exemplars:
        known = embed_exemplars(
            request.exemplars, request.detector, request.embedder, cfg, request.size
        )
    if not is_first_process():
        return None
    scored = score(request, embedded, known)
    ranking, notes = list_of(request, scored)
    show("\n".join(notes))
    request.notes.extend(notes)
    write(request, ranking, show)
    return ranking


def score(request: Request, embedded: Embedded, known: Feats | None) -> Scored:
    """Return the scores of what was embedded."""
    feats = feats_of(embedded)
    fair = request.options.fair
    if request.detector.regions and known is not None and embedded.patches is not None:
        grid = (embedded.patches.shape[1], embedded.patches.shape[2])
        with counting_bar(len(feats), "regions", "img") as bar:
            return Scored(embedded, *score_regions(feats, known, grid, bar.update))
    clips = dict(zip(request.frames.paths, request.frames.clips))
    groups = groups_of([clips[path] for path in embedded.split.paths], fair.block)
    scores = cross_fitted(
        request.detector, feats, groups, known, fair.folds, fair.fit_on, fair.seed
    )
    return Scored(embedded, scores)


def list_of(request: Request, scored: Scored) -> tuple[Ranking, list[str]]:
    """Return the list of different scenes, and notes on it."""
    notes = []
    asked, frames = request.options.scenes, request.frames
    rows = scored.embedded.pooled
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    near = asked.min_distance
    if near is None:
        near = usual_distance(unit, request.options.fair.seed)
        notes.append(f"images within a cosine distance of {near:.4f} are one scene")
    clips = dict(zip(frames.paths, frames.clips))
    exemplars = [] if request.exemplars is None else request.exemplars.known(scored.paths)
    scenes = choose(
        scored.scores,
        unit,
        [clips[path] for path in scored.paths],
        asked.top,
        near,
        asked.per_clip,
        asked.diverse,
        exemplars,
    )
    if len(scenes.chosen) < asked.top:
        notes.append(
            f"only {len(scenes.chosen)} scenes: {len(scored.paths)} images have no more "
            "(--min-distance and --per-clip say what one is)"
        )
    boxes = _boxes(scored, scenes)
    return build(frames, scored.paths, scored.scores, scenes, exemplars, boxes), notes


def _boxes(scored: Scored, scenes: Scenes) -> Sequence[Box | None]:
    """Return the evidence of every image, in its pixels."""
    patches = scored.embedded.patches
    if scored.cells is None or patches is None:
        return ()
    grid = (patches.shape[1], patches.shape[2])
    return [
        box_in_image(cells, grid, scored.embedded.size, path)
        for cells, path in zip(scored.cells, scored.paths)
    ]


def write(request: Request, ranking: Ranking, show: Callable[[str], None]) -> None:
    """Write the lists, then the pictures: one that fails costs nothing but itself."""
    options, frames = request.options, request.frames
    out, by = options.output.folder, request.detector.name
    notes = [f"{request.embedder.name}: {request.embedder.note}", *request.notes]
    facts = {
        "command": printable(options.command),
        "detector": by,
        "counts": ranking.counts(),
        "notes": [printable(note) for note in notes],
        "scenes": asdict(options.scenes),
        "fairness": asdict(options.fair),
    }
    said = _audited(request, ranking)
    with atomic.staged_files(out) as folder:  # all of it, or nothing
        lacking = output.write_lists(output.records(ranking, frames), facts, folder)
        notes += lacking
        failed = page.write_page(ranking, frames, by, options.command, notes, folder, said)
        if options.checked.audit is not None:
            drawn = audit.draw(ranking, options.checked.audit, options.fair.seed)
            audit.write_sheet(drawn, ranking, frames, folder)
            said.append(
                f"{out / audit.SHEET}: {len(drawn.entries)} images to look at; write yes or no "
                f"into the column rare, then call this with --audited {out / audit.SHEET}"
            )
    if lacking:  # what is there of an earlier ranking would not fit
        (out / "ranking.parquet").unlink(missing_ok=True)
    said = [*page.conclusion(ranking, by), *said, *lacking, *failed, *_acted_on(request, ranking)]
    said.append(f"report: {out / 'report.html'}")
    show("\n".join(map(printable, said)))


def _audited(request: Request, ranking: Ranking) -> list[str]:
    """Return what a filled sheet says of the list."""
    sheet = request.options.checked.audited
    if sheet is None:
        return []
    out, row_of = request.options.output.folder, request.lookup.row_named
    return audit.read_audit(sheet, out, ranking, request.frames, row_of)


def _acted_on(request: Request, ranking: Ranking) -> list[str]:
    """Write what was asked for beside the lists; return what that is."""
    asked, said = request.options.output, []
    if asked.link is not None:
        count = output.link(ranking, asked.link, asked.copies)
        said.append(f"{asked.link}: {count} images by rank")
    if asked.for_training is not None:
        known = request.exemplars
        inside = [] if known is None else known.in_data
        said.append(output.write_for_training(ranking, inside, asked.for_training))
    return said

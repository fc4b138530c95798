"""``solo-ood rank``: from a folder of frames to a list of rare scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from solo_ood.detection.feats import Feats
from solo_ood.embedding.devices import is_first_process
from solo_ood.embedding.extract import embed
from solo_ood.files import atomic
from solo_ood.files.text import printable
from solo_ood.mining import audit, output, page
from solo_ood.mining.exemplars import embed_exemplars
from solo_ood.mining.export import hits_of, write_exports
from solo_ood.mining.feedback import questions
from solo_ood.mining.options import RankOptions
from solo_ood.mining.ranking import Ranking, build
from solo_ood.mining.recall import remembered
from solo_ood.mining.request import Request, read_request
from solo_ood.mining.scenes import choose, usual_distance
from solo_ood.mining.scoring import Scored, score


@dataclass(frozen=True)
class Listed:
    """A list and what to do next.

    Attributes:
        ranking: the list.
        notes: what a reader should know of it.
        teaching: images whose answer would teach the ranking most.
    """

    ranking: Ranking
    notes: list[str]
    teaching: list[Path]


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
    known = embed_known(request)
    if not is_first_process():
        return None
    scored = score(request, embedded, known)
    listed = list_of(request, scored)
    show("\n".join(map(printable, listed.notes)))
    write(request, listed, show)
    return listed.ranking


def embed_known(request: Request) -> Feats | None:
    """Return the features of the exemplars; ``None`` if there are none for this detector.

    Raises:
        UserError: see ``embed_exemplars``.
    """
    exemplars, chosen = request.exemplars, request.detector
    if exemplars is None or not chosen.exemplars or (chosen.regions and not exemplars.have_regions):
        return None
    cfg = replace(request.options.embedding, cached_only=False)  # of a few pictures
    return embed_exemplars(exemplars, chosen, request.embedder, cfg, request.size)


def list_of(request: Request, scored: Scored) -> Listed:
    """Return the list of different scenes."""
    notes = []
    asked, frames, lesson = request.options.scenes, request.frames, scored.lesson
    near = asked.min_distance
    if near is None:
        near = usual_distance(scored.unit, request.options.fair.seed)
        notes.append(f"images within a cosine distance of {near:.4f} are one scene")
    clips = dict(zip(frames.paths, frames.clips))
    exemplars = [] if request.exemplars is None else request.exemplars.known(scored.paths)
    exemplars = list(dict.fromkeys([*exemplars, *lesson.yes]))
    scenes = choose(
        scored.scores,
        scored.unit,
        [clips[path] for path in scored.paths],
        asked.top,
        near,
        asked.per_clip,
        asked.diverse,
        list(dict.fromkeys([*exemplars, *lesson.no])),
    )
    if len(scenes.chosen) < asked.top:
        notes.append(
            f"only {len(scenes.chosen)} scenes: {len(scored.paths)} images have no more "
            "(--min-distance and --per-clip say what one is)"
        )
    refused = [row for row in lesson.no if row not in exemplars]
    ranking = build(frames, scored.paths, scored.scores, scenes, exemplars, scored.boxes(), refused)
    teaching: list[Path] = []
    if lesson.rows and request.detector.exemplars and len(scenes.chosen):
        last = float(scored.scores[scenes.chosen[-1]])
        rows = questions(scored.scores, scored.unit, lesson, last, near)
        teaching = [scored.paths[row] for row in rows]
    return Listed(ranking, notes, teaching)


def write(request: Request, listed: Listed, show: Callable[[str], None]) -> None:
    """Write the lists, then the pictures: one that fails costs nothing but itself."""
    options, frames, ranking = request.options, request.frames, listed.ranking
    out, by = options.output.folder, request.detector.name
    notes = [f"{request.embedder.name}: {request.embedder.note}", *request.notes, *listed.notes]
    facts = {
        "command": printable(options.command),
        "detector": by,
        "counts": ranking.counts(),
        "notes": [printable(note) for note in notes],
        "scenes": asdict(options.scenes),
        "fairness": asdict(options.fair),
        **remembered(options),
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
        label = "+".join(options.wanted.rare) or "rare"
        hits = hits_of(ranking, frames, options.output.link) if options.output.export else []
        said += write_exports(options.output.export, hits, label, folder, out)
        if listed.teaching:
            rows = [{"path": frames.name(path), "rare": ""} for path in listed.teaching]
            (folder / output.ASK).write_bytes(output.csv_of(rows, ["path", "rare"]))
            said.append(
                f"{out / output.ASK}: {len(rows)} images whose answer would teach most; write yes "
                "or no, and give it with --feedback beside the earlier sheets"
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
        inside = [] if request.exemplars is None else request.exemplars.in_data
        inside += [request.frames.paths[row] for row in request.answers.yes]
        inside = list(dict.fromkeys(inside))
        said.append(output.write_for_training(ranking, inside, asked.for_training))
    return said

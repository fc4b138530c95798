"""A list made again with other answers, from the features that are in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from solo_ood.detection.detectors import Detector, detector
from solo_ood.detection.feats import Feats
from solo_ood.embedding.extract import Embedded, embed
from solo_ood.mining.options import Audit, Output, RankOptions, Taught
from solo_ood.mining.rank import Listed, embed_known, list_of
from solo_ood.mining.request import (
    Request,
    check_fit,
    default_detector,
    notes_on,
    read_request,
    with_whole,
)
from solo_ood.mining.scoring import score
from solo_ood.mining.sheets import Answers, read_answers

WITHOUT_REGIONS = (
    "boxes count as whole pictures: features of regions are not in the cache; solo-ood rank with "
    "--keep-patches keeps them"
)


@dataclass(frozen=True)
class Prepared:
    """What stays the same whatever is answered.

    Attributes:
        request: what is ranked.
        embedded: its features.
        known: those of the exemplars that were named; ``None`` = none were.
    """

    request: Request
    embedded: Embedded
    known: Feats | None


def prepare(options: RankOptions, show: Callable[[str], None]) -> Prepared:
    """Read data and cached features; nothing is embedded.

    Raises:
        UserError: for what ``rank`` refuses, and for features that are not in the cache.
    """
    here = replace(
        options.embedding,
        accelerator="cpu",
        devices=1,
        num_nodes=1,
        num_workers=0,
        cached_only=True,
    )
    sheets = tuple(sheet for sheet in options.taught.feedback if sheet.exists())
    request = read_request(
        replace(
            options,
            taught=Taught(sheets),
            checked=Audit(),
            output=Output(options.output.folder),
            embedding=here,
        ),
        show,
    )
    frames, cfg = request.frames, request.options.embedding
    embedded = embed(frames.split, request.embedder, cfg, frames.root, "frames", request.size)
    # What is to come may ask for regions or for whole pictures: the first have both.
    given = request.exemplars
    marked = embedded.patches is not None and given is not None and given.have_regions
    chosen = detector("exemplar-regions" if marked else "exemplar")
    return Prepared(request, embedded, embed_known(replace(request, detector=chosen)))


def with_patches(options: RankOptions) -> RankOptions:
    """Return the options with features of regions, too."""
    return replace(options, network=replace(options.network, keep_patches=True))


def again(prepared: Prepared, sheets: Sequence[Path]) -> tuple[Request, Listed]:
    """Return what is asked for with the answers of ``sheets``, and the list.

    A detector that does not learn from answers gives way to the one that ``rank`` takes by itself.

    Raises:
        UserError: for sheets that cannot be read.
    """
    request = prepared.request
    frames, exemplars = request.frames, request.exemplars
    answers = read_answers(sheets, frames.paths, request.lookup.row_named)
    chosen, notes = _detector(prepared, answers)
    check_fit(chosen, exemplars, answers)
    answers = with_whole(answers, exemplars, chosen)
    former = notes_on(request.detector, exemplars, request.answers)
    about_data = [note for note in request.notes if note not in former]
    options = request.options
    options = replace(options, taught=Taught(tuple(sheets)))
    if options.wanted.by is not None:
        options = replace(options, wanted=replace(options.wanted, by=chosen.name))
    request = replace(
        request,
        options=options,
        answers=answers,
        detector=chosen,
        notes=[*about_data, *notes_on(chosen, exemplars, answers), *notes],
    )
    bare = chosen.regions and exemplars is not None and not exemplars.have_regions
    known = None if bare or not chosen.exemplars else prepared.known
    return request, list_of(request, score(request, prepared.embedded, known))


def needs_patches(prepared: Prepared, sheets: Sequence[Path]) -> bool:
    """Whether the answers have boxes, of which features of regions would make use."""
    request = prepared.request
    if prepared.embedded.patches is not None:
        return False
    answers = read_answers(sheets, request.frames.paths, request.lookup.row_named)
    return default_detector(request.exemplars, answers).regions


def _detector(prepared: Prepared, answers: Answers) -> tuple[Detector, list[str]]:
    """Return what the list is made by, and why it is not what was asked for."""
    request, notes = prepared.request, []
    by = request.options.wanted.by
    chosen = default_detector(request.exemplars, answers)
    if by is not None:
        named = detector(by)
        if named.exemplars or not answers.yes:
            chosen = named
        else:
            notes.append(f"{by} does not learn from answers: {chosen.name} takes its place")
    if chosen.regions and prepared.embedded.patches is None:
        chosen = detector("exemplar")
        notes.append(WITHOUT_REGIONS)
    return chosen, notes

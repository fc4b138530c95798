"""A ranking that can be made: what was asked for, checked against the data before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from solo_ood.data.frames import Frames, layout_of, read_frames
from solo_ood.data.survey import cut_note, survey
from solo_ood.detection.detectors import Detector, detector
from solo_ood.embedding.devices import check_devices, is_first_process
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import common_size
from solo_ood.embedding.networks import make_embedder
from solo_ood.embedding.options import SIDE
from solo_ood.errors import UserError
from solo_ood.files.output import check_writable
from solo_ood.files.text import printable
from solo_ood.mining.audit import check_sheet
from solo_ood.mining.exemplars import Exemplars, Lookup, read_exemplars
from solo_ood.mining.export import check_formats
from solo_ood.mining.options import RankOptions
from solo_ood.mining.output import FILES, check_link
from solo_ood.mining.sheets import Answers, read_answers
from solo_ood.options.field import check as check_options

DRIVING_SIDE = 512  # pixels: on driving frames what matters is small

# What a detector is worth, as far as it is known: docs/detectors.md has the tables.
WITHOUT_LABELS = (
    "without labels no score is good everywhere: at its best k-NN found rare classes 5.9 times as "
    "often as chance (digits), on driving frames of new clips 0.8 times. Look at the list, audit "
    "it, or mark what matters in 5 to 20 pictures (--exemplars, better --boxes)"
)
WHOLE = (
    "whole exemplars find scenes like theirs: 2.3 times the lift of the best score without labels "
    "on photographs, little on driving frames of new clips. Where what matters is small, mark it "
    "(--boxes)"
)
NO_REGIONS = (
    "exemplars without boxes: what matters in them is what looks most like the boxes of the "
    "answers; those outside the data are left out"
)


@dataclass(frozen=True)
class Request:
    """What is to be ranked, and by what.

    Attributes:
        options: as asked, with the size of the images.
        frames: the images.
        lookup: finds them by name.
        exemplars: what shows what matters; ``None`` = nothing does.
        answers: what was said of earlier lists.
        detector: whose scores count.
        embedder: the network.
        size: H and W (pixels) to which the images are scaled and cut.
        notes: what a reader should know.
    """

    options: RankOptions
    frames: Frames
    lookup: Lookup
    exemplars: Exemplars | None
    answers: Answers
    detector: Detector
    embedder: Embedder
    size: tuple[int, int]
    notes: list[str]


def read_request(options: RankOptions, show: Callable[[str], None]) -> Request:
    """Read the data and check all that can be checked before anything is embedded.

    Raises:
        UserError: for bad data, options, exemplars, networks or weights.
    """
    check_options(options)
    check_writable(options.output.folder, "--out", *FILES)
    check_link(options.output.link, options.data.path)
    if options.checked.audit is not None:
        check_sheet(options.output.folder)
    layout = layout_of(options.data.path)
    side = options.embedding.image_size or (DRIVING_SIDE if layout == "bdd" else SIDE)
    options = replace(options, embedding=replace(options.embedding, image_size=side))
    check_devices(options.embedding)
    named = None if options.wanted.by is None else detector(options.wanted.by)
    frames = read_frames(options.data.path, options.data.clip_pattern, options.data.fps)
    _check_missing(frames, options.embedding.max_unreadable)
    _check_out(options, frames)
    _check_videos(options, frames)
    kinds = survey(frames.paths)
    frames = replace(frames, levels=kinds.levels)
    lookup = Lookup(frames)
    if options.checked.audited is not None:
        read_answers([options.checked.audited], frames.paths, lookup.row_named)  # of slips first
    answers = read_answers(options.taught.feedback, frames.paths, lookup.row_named)
    exemplars = read_exemplars(options.wanted, frames, lookup)
    chosen = named or default_detector(exemplars, answers)
    check_fit(chosen, exemplars, answers)
    answers = with_whole(answers, exemplars, chosen)
    check_formats(options.output.export, chosen.regions)
    patches = chosen.patches or options.network.keep_patches
    embedder = make_embedder(options.network.spec, options.network.stage, patches)
    size = common_size(kinds.sizes[0], embedder, side)
    notes = [*frames.notes, *kinds.notes, *cut_note(kinds.sizes[0], size)]
    notes += notes_on(chosen, exemplars, answers)
    if is_first_process():
        show("\n".join(printable(note) for note in notes))
    return Request(options, frames, lookup, exemplars, answers, chosen, embedder, size, notes)


def default_detector(exemplars: Exemplars | None, answers: Answers) -> Detector:
    """Return what ``docs/detectors.md`` found best for what is known of what matters."""
    if answers.boxes or (exemplars is not None and exemplars.have_regions):
        return detector("exemplar-regions")
    return detector("knn" if exemplars is None and not answers.yes else "exemplar")


def with_whole(answers: Answers, exemplars: Exemplars | None, chosen: Detector) -> Answers:
    """Return the answers of a list by regions, exemplars without any being a yes without a box."""
    if exemplars is None or exemplars.have_regions or not chosen.regions:
        return answers
    inside = {int(row): True for row in exemplars.rows if row >= 0}
    return replace(answers, rare={**inside, **answers.rare})


def check_fit(chosen: Detector, exemplars: Exemplars | None, answers: Answers) -> None:
    """Raise ``UserError`` if a detector lacks what it needs."""
    what = f"--by {chosen.name}"
    if chosen.exemplars and exemplars is None and not answers.yes:
        raise UserError(
            what,
            expected="pictures that show what matters",
            got="none",
            remedy="Give 5 to 20: --exemplars A.jpg B.jpg, or --boxes FILE.",
        )
    marked = answers.boxes or exemplars is not None and exemplars.have_regions
    if chosen.regions and not marked:
        raise UserError(
            what,
            expected="boxes, or masks and the classes that matter",
            got="whole pictures",
            remedy="Give --boxes FILE, or --rare CLASS for exemplars with masks; or --by exemplar.",
        )


def notes_on(chosen: Detector, exemplars: Exemplars | None, answers: Answers) -> list[str]:
    """Return what a list by this detector is worth, and what it does not look at."""
    if chosen.regions:
        whole = exemplars is not None and not exemplars.have_regions
        return [NO_REGIONS] if whole else []
    if chosen.exemplars:
        return [WHOLE]
    notes = [WITHOUT_LABELS]
    if answers.rare:
        notes.append(
            f"{chosen.name} does not learn from answers: these images are left out of the list"
        )
    if exemplars is not None:
        notes.append(f"{chosen.name} does not look at exemplars: they are left out of the list")
    return notes


def _check_missing(frames: Frames, limit: float) -> None:
    total = len(frames) + len(frames.missing)
    if len(frames.missing) > limit * total:
        raise UserError(
            "frames",
            expected=f"at most {limit:.1%} of {total} files to be missing",
            got=f"{len(frames.missing)}, the first {printable(str(frames.missing[0]))}",
            remedy="Paths count from the folder of the list; or allow more with --max-unreadable.",
        )


def _check_videos(options: RankOptions, frames: Frames) -> None:
    """Raise ``UserError`` for outputs that name image files, where frames of videos are none."""
    asked = options.output
    if frames.seconds and asked.for_training is not None:
        raise UserError(
            "--for-training",
            expected="image files, from which a training run reads",
            got="frames of videos",
            remedy="Unpack the videos first, for instance by ffmpeg, and rank the images.",
        )
    if frames.seconds and asked.export and asked.link is None:
        raise UserError(
            "--export",
            expected="--link DIR beside it, which writes the chosen frames of videos as images",
            got="none",
            remedy="Name a new folder by --link: the exports then name its files.",
        )


def _check_out(options: RankOptions, frames: Frames) -> None:
    out = options.output.folder.resolve()
    if any(path.parent.resolve() == out for path in frames.paths):
        raise UserError(
            "--out",
            expected="a folder of its own",
            got=f"{options.output.folder}, which holds images of the data",
            remedy="Give --out a folder beside the data.",
        )

"""Recognise names: labels, splits, and files that systems leave behind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# By rank: of several folders of a kind the first is taken.
FIT_NAMES = ("train", "training", "trainval", "fit", "trn")
TEST_NAMES = (
    *("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    *("test", "testing", "tst", "holdout"),
)
_FILLERS = {"set", "sets", "data", "dataset", "split", "image", "images", "img", "imgs"}

_NEAR_SPLIT = re.compile(
    r"(?i:tr|trn|train|training|va|vl|val|valid|validation|dev|eval|te|ts|tst|test|testing)"
    r"[\W\d_]*([A-Z]|(?<=[\W\d_])[a-z])?"
)

# Also those without a width, which a spreadsheet or a web page leaves behind.
_BLANKS_AROUND = re.compile(r"\A[\s\u200b-\u200f\u2060\ufeff]+|[\s\u200b-\u200f\u2060\ufeff]+\Z")

# Of macOS, Windows, and network storage; what begins with a dot is hidden anyway.
_LITTER = {
    *("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}


def normalise_name(name: str) -> str:
    """Return a label without blanks around it, in one Unicode form: macOS writes another one."""
    return _BLANKS_AROUND.sub("", unicodedata.normalize("NFC", name))


def split_of(name: str) -> tuple[str, int] | None:
    """Return ``fit`` or ``test`` and the rank of a split's name in any spelling, such as
    ``Train``, ``train_set`` or ``val2017``; ``None`` for other names.
    """
    folded = normalise_name(name).casefold()
    if re.search(r"[^\w\s.()-]|[^\x00-\x7f]", folded):
        return None
    words = [word for word in re.findall(r"[a-z]+", folded) if word not in _FILLERS]
    if len(words) != 1:
        return None
    word = re.sub(r"(?<=.)(set|data|images|imgs)$", "", words[0])
    for kind, known in (("fit", FIT_NAMES), ("test", TEST_NAMES)):
        if word in known:
            return kind, known.index(word)
    return None


def splits_among(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return which names of folders that lie side by side are splits', see ``split_of``.

    Also ``seg_train`` and ``train.v1``, where all folders have a split's name as a word of theirs
    and there are some to fit and some to test on: beside ``bus``, a ``train_station`` is a class.
    """
    names = list(names)
    plain = {name: kind for name in names if (kind := split_of(name)) is not None}
    loose = {name: plain.get(name) or _split_in(name) for name in names}
    if all(loose.values()) and {kind[0] for kind in loose.values() if kind} == {"fit", "test"}:
        return {name: kind for name, kind in loose.items() if kind}
    return plain


def look_like_splits(names: Iterable[str]) -> bool:
    """Whether several names are all nearly those of splits, such as ``trainA`` and ``trainB`` or
    ``tr`` and ``te``; they may as well be classes.
    """
    found = [_NEAR_SPLIT.fullmatch(normalise_name(name)) is not None for name in names]
    return len(found) > 1 and all(found)


def _split_in(name: str) -> tuple[str, int] | None:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", normalise_name(name))
    found = [kind for word in words if (kind := split_of(word)) is not None]
    return found[0] if len(found) == 1 else None


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by a system rather than by a person."""
    return name.startswith(".") or name.casefold() in _LITTER

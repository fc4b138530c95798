"""What do answers to the first list gain? Print the precision of the next list as Markdown.

On the driving frames of ``studies/frames.py``: the first 40 scenes are answered by the masks, yes
or no without boxes, and the ranking is refitted. Beside it stand the next 40 of the list as it
was, without what was answered.
"""

from __future__ import annotations

import numpy as np
from frames import TOP, Judged, arguments, judged
from results import Numbers, table

from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.feedback import AGAINST, Lesson, with_regions
from solo_ood.mining.scenes import choose


def first_list(data: Judged, scores: np.ndarray, known: list[int]) -> np.ndarray:
    clips = [""] * len(scores)
    return choose(scores, data.unit, clips, TOP, data.near, known=known).chosen


def whole(data: Judged, groups: np.ndarray, yes: list[int], no: list[int]) -> np.ndarray:
    def scores(rows: list[int]) -> np.ndarray:
        exemplars = Feats(data.found.pooled[rows])
        return cross_fitted(DETECTORS["exemplar"], data.feats, groups, exemplars)

    return scores(yes) - (AGAINST * scores(no) if no else 0)


def regions(data: Judged, known: Feats) -> np.ndarray:
    return DETECTORS["exemplar-regions"].fit(data.feats, 0)(data.feats, known)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    data = judged(asked)
    groups = groups_of(data.frames.clips, None)
    results: Numbers = {}

    def note(name: str, chosen: np.ndarray) -> None:
        results.setdefault(name, []).append([float(data.rare[chosen].mean())])

    for rows in data.draws:
        exemplars = rows.tolist()
        for name in ("exemplar", "exemplar-regions"):
            marked = data.marked(rows)
            by_regions = name == "exemplar-regions"
            before = regions(data, marked) if by_regions else whole(data, groups, exemplars, [])
            chosen = first_list(data, before, exemplars)
            yes, no = chosen[data.rare[chosen]].tolist(), chosen[~data.rare[chosen]].tolist()
            known = [*exemplars, *yes, *no]
            lessons = {"yes and no": (yes, no), "yes alone": (yes, []), "no alone": ([], no)}
            note(f"{name}, first list", chosen)
            note(f"{name}, next list without answers", first_list(data, before, known))
            for what, (right, wrong) in lessons.items():
                if by_regions:
                    taught = with_regions(Lesson(right, wrong, {}), data.found, marked)
                    after = regions(data, taught)
                else:
                    after = whole(data, groups, [*exemplars, *right], wrong)
                note(f"{name}, next list, {what}", first_list(data, after, known))
    print(table("precision", {"": results}, {f"{TOP} scenes": 0}))


if __name__ == "__main__":
    main()

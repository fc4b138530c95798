"""Terms of the reports: the glossary at their end and the hints in tables.

``docs/glossary.md`` explains each in the same words; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable

TERMS = {
    "ood_score": "How unusual an image is to a detector; no unit. Higher = rarer.",
    "rare": "What is to be found; the report says by which classes or pixels.",
    "scene": "Images that look alike; the one with the highest score stands for all of them.",
    "detector": "Scores images: learnt from a stream, or from examples (exemplars).",
    "exemplar": "An image that shows what matters; a detector by exemplars gets 5 to 20 of them.",
    "threshold": "An image is flagged if its ood_score is above it.",
    "p": "Share of the images that the threshold is to leave unflagged, in [0, 1].",
    "N": "Images that a detector was fitted on; – = it learns nothing.",
    "Acc": "Accuracy: share of all images that are judged rightly. High for whoever flags none.",
    "P": "Precision: share of the flagged images that are rare.",
    "R": "Recall: share of the rare images that are flagged.",
    "F1": "Harmonic mean of precision and recall.",
    "Base": "Base rate: share of the images that are rare; the precision of a random detector.",
    "Flag": "Flag rate: share of the images that are flagged.",
    "R max": "Recall ceiling: the recall of a perfect ranking that flags as many.",
    "Lift": "Precision / base rate: how many times better than random; a random detector has 1.",
    "Top lift": "Lift of the images with the highest scores, without a threshold.",
    "AUROC": "Chance that a rare image scores above another one; a random detector has 0.5.",
    "AP": "Average precision, the area under precision over recall; by chance the base rate.",
    "FPR95": "Share of the other images flagged where 95 % of the rare ones are; lower is better.",
    "95 % interval": "Holds 95 % of single repeats on resampled test images.",
    "embedding": "A network's description of an image: D numbers, scaled to length 1.",
    "queue": "Dataset indexes of the newest flagged samples; training replays from it.",
    "replay": "A queued sample takes the place of another one in a training batch.",
    "flag rate": "Share of the judged samples that the threshold flagged.",
    "teacher": "The slowly moving average of the trained network (the student).",
    "k-NN": "Accuracy of a vote among the nearest labelled images in the embedding, in percent.",
    "linear": "Accuracy of a logistic regression on the frozen embedding, in percent.",
    "Many": "The classes with the most training images (of three groups).",
    "Medium": "The classes with a middling number of training images.",
    "Few": "The classes with the fewest training images.",
    "Std": "Standard deviation of Many, Medium and Few, in points; 0 = all are equally good.",
    "held-out": "Fitted on labelled images that were not trained on, as many of each class.",
}


def terms_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the terms ``names`` with what they mean, in their order."""
    return [(name, TERMS[name]) for name in names]

"""``solo-ood measure``: how well any detector of rare images does on labelled data."""

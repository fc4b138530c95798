"""``solo-ood detect``: measure any detector of rare images on labelled data."""

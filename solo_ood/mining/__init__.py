"""``solo-ood rank``: the rare images of unlabelled data, as a list one can act on."""

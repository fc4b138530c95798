"""``solo-ood explore``: look at a ranking in a browser, answer, draw boxes, and rank again."""

"""``solo-ood stream``: one verdict for each item of a stream, with a flag rate that holds."""

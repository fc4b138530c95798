"""``solo-ood study``: arms side by side over paired seeds and class orders, and what differs."""

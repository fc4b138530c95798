"""Score, judge, queue: which samples of a stream are rare, and which are kept."""

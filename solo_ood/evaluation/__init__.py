"""Linear and k-NN evaluation for long-tailed data."""

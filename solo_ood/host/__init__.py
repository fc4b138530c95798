"""The one place that knows which solo-learn is installed, and what it has where."""

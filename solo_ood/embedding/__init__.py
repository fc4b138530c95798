"""Networks that embed images: where their weights come from, and what they return."""

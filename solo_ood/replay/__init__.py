"""Read queued samples again and mix them into the batches of a method with a teacher."""

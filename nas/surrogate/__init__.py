"""What a search may know of candidates that it has not trained: a model of one noisy score, and what it is worth."""

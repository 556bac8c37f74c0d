"""What can be said exactly of all members of a space, however many, and members within a budget drawn uniformly."""

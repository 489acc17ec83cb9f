"""What an experiment is made of: its keys, their ranges, how they are read."""

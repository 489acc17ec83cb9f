"""Masks in the leaderboard's formats."""

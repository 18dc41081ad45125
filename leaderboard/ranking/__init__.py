"""Ranking of leaderboard entries: tracks, comparisons of neighbours, standings."""

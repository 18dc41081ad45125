"""Leaderboard site: static pages from records, and from the editions that they name."""

from __future__ import annotations

from leaderboard.site.builder import build

__all__ = ["build"]

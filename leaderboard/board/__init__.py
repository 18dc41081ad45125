"""The board: static pages from records alone, and from the editions that they name."""

from __future__ import annotations

from leaderboard.board.building import build

__all__ = ["build"]

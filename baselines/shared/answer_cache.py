"""Cache of a vision-language model's answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from milannotations.utils.cache import Cache, content_key


class AnswerCache:
    """Answers of a model, in memory and, if there is a folder, in one file per question.

    A file holds the question beside the answers; a damaged file is written again. Of equal
    questions asked at the same time, one is asked. Malformed answers are not kept.

    Args:
        folder: created with the first answer; None keeps answers in memory only.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self._cache = Cache(folder)
        self._answers: dict[str, dict[str, Any]] = {}
        self._locks: dict[str, Lock] = {}

    def get(
        self, question: Mapping[str, Any], ask: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """Return the answers to a question, and whether they came from the cache."""
        key = content_key(question)
        with self._locks.setdefault(key, Lock()):
            if key in self._answers:
                return self._answers[key], True
            entry = self._cache.entry("answers", question, suffix=".json")
            cached = entry.read(lambda path: _read(path, question))
            answers = ask() if cached is None else cached
            if any(answer["reason"] == "malformed" for answer in answers["said"]):
                return answers, False
            self._answers[key] = answers
            if cached is None:
                entry.write_json({"asked": question, **answers})
            return answers, cached is not None


def _read(path: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers in a file of the cache.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the file is damaged.
    """
    answers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if answers.pop("asked") != json.loads(json.dumps(question)):
        raise ValueError(f"{path} answers another question")
    for answer in answers["said"]:
        if not isinstance(answer["text"], str) or "reason" not in answer:
            raise ValueError(f"{path} has an answer without a text or a reason")
    if not {"seconds", "tokens_in", "tokens_out"} <= set(answers):
        raise ValueError(f"{path} has no costs")
    return answers

"""Cleaning of a language model's answers, and detection of refusals and other non-answers."""

from __future__ import annotations

import re
import unicodedata

from milannotations.published.annotations import has_words

_REFUSAL = re.compile(
    r"""^\W*(
        (oh,\s+|well,\s+)?i\s?('m|am)\s+((very|really|so|terribly)\s+)?sorry\b
        | sorry\s*([,.!]|\s(but|i|we)\b)
        | (unfortunately|regrettably)\b
        | (i|my)\s+apolog
        | i('m|\s+am)\s+(unable|not\s+able|just\s+a|a\s+(text|language))
        | (i|we)\s+(can('|\s?no)t|could\s?n('|o)t|do(n't|\s+not))\s+
          (\w+\s+)?(see|view|assist|help|describe|identify|determine|provide|process|analy|comply
            |have|access|tell|answer)
        | please\s+(provide|upload|share|attach|send)
        | (there\s+(is|are|was)\s+)?no\s+(image|picture|photo)s?\s+(\w+\s+)?
          (provided|attached|uploaded|shared|visible|given|available)
    ) | \bas\s+an?\s+(ai|artificial\s+intelligence|(large\s+)?language\s+model)\b""",
    re.IGNORECASE | re.VERBOSE,
)

_OPENING = re.compile(
    r"^(answer|description|caption|short phrase|assistant)\s*:\s*(?=\S)", re.IGNORECASE
)


def clean_answer(text: str) -> str:
    """Strip an answer of what surrounds it: thoughts, quotes, markup, a final full stop.

    Example:
        >>> clean_answer('<think>Hm.</think> **Answer:** "Striped fabric."')
        'Striped fabric'
    """
    # a thought that was cut off by the token limit has no end
    text = re.sub(r"<think>.*?(</think>|\Z)", " ", text, flags=re.DOTALL | re.IGNORECASE)
    # control characters and lone surrogates
    text = "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    text, before = " ".join(text.split()), None
    # layers come in any order, such as quotes around a bold opening: strip until nothing changes
    while text != before:
        before = text
        if not text.startswith(("{", "[")):
            text = text.strip('*_`"\u201c\u201d\u00ab\u00bb ')
        text = _OPENING.sub("", text)
        for mark in ".\u3002":
            # a text of several sentences keeps its full stops
            if text.endswith(mark) and text.count(mark) == 1:
                text = text[:-1]
        if len(text) > 2 and text[0] == text[-1] == "'":
            text = text[1:-1]
    return text


def rejection_reason(text: str, max_words: int) -> str:
    """Return why a cleaned answer is no description, or "" if it is one.

    Example:
        >>> rejection_reason("I'm sorry, but I can't help with that", 30)
        'refused'
        >>> rejection_reason("sorry signs", 30), rejection_reason("...", 30)
        ('', 'no text')
        >>> rejection_reason('{"error": "busy"}', 30), rejection_reason("a b c", 2)
        ('not a text', 'too long')
    """
    if not has_words(text):
        return "no text"
    if text[0] in "{[<":
        return "not a text"
    if _REFUSAL.search(text.replace("\u2019", "'")):
        return "refused"
    return "too long" if len(text.split()) > max_words else ""

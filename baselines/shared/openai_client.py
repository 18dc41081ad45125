"""Endpoints that speak OpenAI's protocol of chat completions, and what to make of an answer.

The key comes from the environment, `MILAN_API_KEY` or else `OPENAI_API_KEY`, at every request. It
is kept in no object and is struck out of whatever a server says.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.utils.http import (
    RetriesExhausted,
    TemporaryFailure,
    cause,
    is_http_url,
    retry,
    temporary_failure,
)

if TYPE_CHECKING:
    import requests
    from PIL import Image

KEYS = ("MILAN_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the first that does is taken."""

MALFORMED = 2
"""Answers in a row that may be no chat completion before the unit is given up."""

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses that may be gone at the next attempt."""

_FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
"""Codes of an error that are a refusal to look at these pictures."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: as it wrote it; "" if it wrote none.
        reason: why there is none: "refused", "malformed", or "".
        tokens_in, tokens_out: of the pictures and the prompt, and of the text; None is unknown.
        ids: the text's tokens, its end included, where the model runs here.
    """

    text: str
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    ids: tuple[int, ...] = ()


class LogProbability(NamedTuple):
    """Log p of a given text, or None; the tokens that were read; why there is none."""

    log_p: float | None
    tokens: int = 0
    reason: str = ""


class ChatClient:
    """Asks one model at one address.

    Args:
        url: such as `http://localhost:8000/v1`; `/chat/completions` comes after it.
        model: as the endpoint calls it.
        max_tokens: of an answer.
        attempts: requests for one answer, in all.
        timeout: seconds without a byte of the answer before it is asked for again.
        body: fields of the request besides, or in place of, ours; one that is None is left out.

    Raises:
        InputError: `url` is no http or https address, or holds a user name or a query.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_tokens: int = 64,
        attempts: int = 6,
        timeout: float = 120.0,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.url, self.model = _checked(url), model
        self._attempts, self._timeout = attempts, timeout
        self._body = {"max_tokens": max_tokens, **(body or {})}

    @property
    def identity(self) -> dict[str, Any]:
        """What answers depend on, as JSON."""
        return {"url": self.url, "model": self.model, **self._body}

    def open(self) -> None:
        """Do nothing: it is loaded where it runs."""

    def write(self, pictures: Sequence[Image.Image], prompt: str) -> Answer:
        """Return the answer at temperature 0.

        Raises:
            InputError: the endpoint does not answer, or says that the request is wrong.
        """
        return self._said([_question(pictures, prompt)], {"temperature": 0})

    def candidates(self, pictures: Sequence[Image.Image], prompt: str, n: int) -> list[Answer]:
        """Return the answer at temperature 0, and n - 1 at temperature 1, with seeds 1 to n - 1."""
        messages = [_question(pictures, prompt)]
        drawn = [{"temperature": 1, "seed": seed} for seed in range(1, n)]
        return [self._said(messages, how) for how in ({"temperature": 0}, *drawn)]

    def log_p(self, pictures: Sequence[Image.Image], prompt: str, answer: Answer) -> LogProbability:
        """Return log p(text | pictures, prompt).

        The text is given as the beginning of the model's own message, and the endpoint says how
        likely each token was (`prompt_logprobs`, as vLLM has it). None: its tokens are not those
        of the text.

        Raises:
            InputError: the endpoint does not say.
        """
        messages = [_question(pictures, prompt), {"role": "assistant", "content": answer.text}]
        how = {
            "temperature": 0,
            "max_tokens": 1,
            "prompt_logprobs": 1,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        found = self._ask(messages, how)
        if found is None:
            return LogProbability(None, reason="malformed")
        told = found.get("prompt_logprobs")
        if not isinstance(told, list):
            raise InputError(
                f"{self.url} gives no log-probabilities of a given text (prompt_logprobs, as vLLM "
                "has it), and pmi=True needs them. Leave pmi out, or name a model that runs here "
                "(model=FOLDER, no url)."
            )
        return LogProbability(_tail(told, answer.text), _count(found, "prompt_tokens") or 0)

    def _said(self, messages: list[dict[str, Any]], how: Mapping[str, Any]) -> Answer:
        found = self._ask(messages, how)
        if found is None:
            return Answer("", "malformed")
        counts = (_count(found, "prompt_tokens"), _count(found, "completion_tokens"))
        if "refused" in found:
            return Answer("", "refused", *counts)
        choice = found["choices"][0]
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Answer("", "refused", *counts)
        return Answer(_struck(_text(message.get("content"))), "", *counts)

    def _ask(self, messages: list[dict[str, Any]], how: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a chat completion; None: what came, several times in a row, was none."""
        import requests

        body = {"model": self.model, "messages": messages, **how, **self._body}
        if "prompt_logprobs" in how:
            body |= how
        body = {name: value for name, value in body.items() if value is not None}
        malformed = 0

        def request() -> dict[str, Any] | None:
            nonlocal malformed
            try:
                return self._once(body)
            except _Malformed as error:
                malformed += 1
                if malformed >= MALFORMED:
                    _log.warning("%s: %s", self.url, error)
                    return None
                raise
            except requests.exceptions.SSLError as error:
                raise InputError(f"{self.url}: {cause(_struck(str(error)))}") from None
            except (TemporaryFailure, requests.RequestException):
                malformed = 0
                raise

        try:
            return retry(
                request,
                attempts=self._attempts,
                tell=lambda line: _log.warning("%s: %s", self.url, line),
                redact=_struck,
            )
        except RetriesExhausted as error:
            raise InputError(
                f"{self.url} gave no answer in {self._attempts} attempts ({error}). "
                "Is it running, and is this its address? Answers that came are in the cache, "
                "if there is one (cache=FOLDER); run this again to go on."
            ) from None

    def _once(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one request; return a chat completion, or {"refused": ...}."""
        import requests

        response = requests.post(
            f"{self.url}/chat/completions",
            json=body,
            auth=_authorise,
            timeout=self._timeout,
            allow_redirects=False,  # they would turn it into a GET
        )
        content = response.content
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if response.status_code != 200:
            return self._refused(response, found)
        if content.lstrip()[:1] == b"<":
            raise InputError(f"{self.url} answers with a web page. {_ADDRESS}")
        return _completion(found, content)

    def _refused(self, response: requests.Response, found: Any) -> dict[str, Any]:
        """Raise what a status means; return {"refused": ...} if it is about these pictures."""
        status = response.status_code
        code, says = _error(found)
        says = f"status {status}" + (f": {says}" if says else "")
        if code in _FILTERED:
            return {"refused": True}
        if status in _PASSING and code != "insufficient_quota":
            kept = "answers that came are in the cache, if there is one."
            raise temporary_failure(response, self.url, says, kept)
        if status in (401, 403):
            variable = next((name for name in KEYS if os.environ.get(name, "").strip()), None)
            advice = (
                f"The key in {variable} was sent."
                if variable
                else f"No key was sent; put it into the environment variable {KEYS[0]}."
            )
        elif 300 <= status < 400 or status in (404, 405):
            advice = f"Is there a model '{self.model}'? {_ADDRESS}"
        else:
            advice = "Fields of the request are changed with body={'name': value or None}."
        raise InputError(f"{self.url} refuses ({says}). {advice}")


_ADDRESS = "An address ends before '/chat/completions', such as http://localhost:8000/v1."


class _Malformed(TemporaryFailure):
    """An answer that is no chat completion."""


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.username is not None or parts.query or parts.fragment:
        # not shown: one of them may be a key
        raise InputError(
            f"The address on {parts.hostname} holds a user name or a query, which would end up in "
            f"records. The key is taken from the environment variable {' or '.join(KEYS)}."
        )
    if not is_http_url(url):
        raise InputError(f"{url!r} is no http or https address. {_ADDRESS}")
    return url.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _key() -> str:
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if key:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise InputError(f"{name} holds characters that are in no key.")
            return key
    return ""


def _authorise(request: Any) -> Any:
    """Put the key into a request; called by requests, which then reads no .netrc."""
    key = _key()
    if key:
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _struck(text: str) -> str:
    """Return a text without the keys, which a server may repeat."""
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        text = text.replace(key, "***") if key else text
    return text


def _question(pictures: Sequence[Image.Image], prompt: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        url = {"url": f"data:image/png;base64,{data}"}
        parts.append({"type": "image_url", "image_url": url})
    return {"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}


def _completion(found: Any, content: bytes) -> dict[str, Any]:
    """Return a chat completion with at least one message.

    Raises:
        _Malformed: it is none.
    """
    try:
        if isinstance(found["choices"][0]["message"], dict):
            return dict(found)
    except (TypeError, KeyError, IndexError):
        pass
    says = _error(found)[1] or _struck(content[:200].decode(errors="replace"))
    raise _Malformed(f"no chat completion came, but {says!r}")


def _text(content: Any) -> str:
    """Return the text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _count(found: Mapping[str, Any], name: str) -> int | None:
    usage = found.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _error(found: Any) -> tuple[str, str]:
    """Return (code, message) of an error in JSON, in the shapes in which servers put it."""
    error = found.get("error", found) if isinstance(found, dict) else None
    if isinstance(error, str):
        return "", _struck(error)[:300]
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") or error.get("type") or ""
    return str(code), _struck(str(error.get("message") or error.get("detail") or ""))[:300]


def _tail(told: Sequence[Any], text: str) -> float | None:
    """Return the summed log-probability of the last tokens, those that spell the text.

    Args:
        told: for each token {id: {"logprob": ..., "decoded_token": ...}, ...}, itself first.
        text: what they spell, spaces around it aside.

    Example:
        >>> token = lambda text, p: {"7": {"logprob": p, "decoded_token": text}}
        >>> _tail([None, token("it:", -9), token(" red", -1), token(" cars", -0.5)], "red cars")
        -1.5
    """
    spelled, total, wanted = "", 0.0, text.strip()
    for entry in reversed(told):
        try:
            token = next(iter(entry.values()))
            spelled = token["decoded_token"] + spelled
            total += float(token["logprob"])
        except (AttributeError, TypeError, KeyError, ValueError, StopIteration):
            return None
        if spelled.strip() == wanted:
            return total if math.isfinite(total) else None
        if len(spelled.strip()) > len(wanted):
            return None
    return None


# what to make of an answer ----------------------------------------------------------------

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
    """Return an answer without what stands around it: thoughts, quotes, marks, a full stop.

    Example:
        >>> cleaned('<think>Hm.</think> **Answer:** "Striped fabric."')
        'Striped fabric'
    """
    text = re.sub(r"<think>.*?(</think>|\Z)", " ", text, flags=re.DOTALL | re.IGNORECASE)
    text = "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    text, before = " ".join(text.split()), None
    while text != before:
        before = text
        if not text.startswith(("{", "[")):
            text = text.strip('*_`"\u201c\u201d\u00ab\u00bb ')
        text = _OPENING.sub("", text)
        for mark in ".\u3002":
            if text.endswith(mark) and text.count(mark) == 1:
                text = text[:-1]
        if len(text) > 2 and text[0] == text[-1] == "'":
            text = text[1:-1]
    return text


def rejection_reason(text: str, max_words: int) -> str:
    """Return why a text describes nothing, or "".

    Example:
        >>> nonsense("I'm sorry, but I can't help with that", 30), nonsense("sorry signs", 30)
        ('refused', '')
        >>> nonsense("...", 30), nonsense('{"error": "busy"}', 30), nonsense("a b c", 2)
        ('no text', 'not a text', 'too long')
    """
    if not has_words(text):
        return "no text"
    if text[0] in "{[<":
        return "not a text"
    if _REFUSAL.search(text.replace("\u2019", "'")):
        return "refused"
    return "too long" if len(text.split()) > max_words else ""

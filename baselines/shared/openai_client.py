"""Client of endpoints with OpenAI's chat completions API.

The key is read from the environment at every request: `MILAN_API_KEY`, or else `OPENAI_API_KEY`. No
object holds it, and it is removed from every text that a server returns.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from baselines.shared.vision_language import Answer, LogProbability
from milannotations.errors import InputError
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
"""Environment variables that may hold the key; the first that does is used."""

MAX_MALFORMED = 2
"""Responses in a row without a chat completion after which an answer is given up."""

_RETRIED_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses for which another attempt may succeed."""

_FILTER_CODES = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
"""Error codes by which a server refuses these images."""

_URL_ADVICE = "An address ends before '/chat/completions', such as http://localhost:8000/v1."

_log = logging.getLogger(__name__)


class ChatClient:
    """Vision-language model behind an endpoint.

    Args:
        url: such as `http://localhost:8000/v1`; `/chat/completions` is added.
        model: name of the model at the endpoint.
        max_tokens: most tokens of an answer.
        attempts: most requests for one answer.
        timeout: seconds without a byte of the answer after which it is requested again.
        body: fields of the request besides or in place of the default ones; None leaves one out.

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
        self.url, self.model = _check_url(url), model
        self._attempts, self._timeout = attempts, timeout
        self._body = {"max_tokens": max_tokens, **(body or {})}

    @property
    def identity(self) -> dict[str, Any]:
        """JSON of everything that decides an answer."""
        return {"url": self.url, "model": self.model, **self._body}

    def open(self) -> None:
        """Do nothing: the endpoint loads the model."""

    def write(self, images: Sequence[Image.Image], prompt: str) -> Answer:
        """Return the answer at temperature 0.

        Raises:
            InputError: the endpoint does not answer, or rejects the request.
        """
        return self._answer([_user_message(images, prompt)], {"temperature": 0})

    def candidates(self, images: Sequence[Image.Image], prompt: str, n: int) -> list[Answer]:
        """Return the answer at temperature 0, and n - 1 at temperature 1, with seeds 1 to n - 1."""
        messages = [_user_message(images, prompt)]
        sampled = [{"temperature": 1, "seed": seed} for seed in range(1, n)]
        return [self._answer(messages, options) for options in ({"temperature": 0}, *sampled)]

    def log_p(self, images: Sequence[Image.Image], prompt: str, answer: Answer) -> LogProbability:
        """Return log p(text | images, prompt).

        The text is sent as the beginning of the model's own message, and the endpoint returns the
        log-probability of each token of the prompt (`prompt_logprobs`, as vLLM offers it). It is
        None if the returned tokens do not spell the text.

        Raises:
            InputError: the endpoint returns no log-probabilities.
        """
        messages = [_user_message(images, prompt), {"role": "assistant", "content": answer.text}]
        options = {
            "temperature": 0,
            "max_tokens": 1,
            "prompt_logprobs": 1,
            # the text is an unfinished message of the model: no new message, no end of this one
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        completion = self._request(messages, options)
        if completion is None:
            return LogProbability(None, reason="malformed")
        tokens = completion.get("prompt_logprobs")
        if not isinstance(tokens, list):
            raise InputError(
                f"{self.url} gives no log-probabilities of a given text (prompt_logprobs, as vLLM "
                "has it), and --set pmi=true needs them. Leave out --set pmi=true, or name a model "
                "that runs on this machine: --model FOLDER, without --set url=."
            )
        n_tokens = _token_count(completion, "prompt_tokens") or 0
        return LogProbability(_sum_tail(tokens, answer.text), n_tokens)

    def _answer(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> Answer:
        completion = self._request(messages, options)
        if completion is None:
            return Answer("", "malformed")
        counts = (
            _token_count(completion, "prompt_tokens"),
            _token_count(completion, "completion_tokens"),
        )
        if "refused" in completion:
            return Answer("", "refused", *counts)
        choice = completion["choices"][0]
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Answer("", "refused", *counts)
        return Answer(_remove_keys(_message_text(message.get("content"))), "", *counts)

    def _request(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return a chat completion; None if `MAX_MALFORMED` responses in a row were none."""
        import requests

        body = {"model": self.model, "messages": messages, **options, **self._body}
        if "prompt_logprobs" in options:
            # here the user's own max_tokens and the like would change what is measured
            body |= options
        body = {name: value for name, value in body.items() if value is not None}
        n_malformed = 0

        def request() -> dict[str, Any] | None:
            nonlocal n_malformed
            try:
                return self._post(body)
            except _MalformedResponse as error:
                n_malformed += 1
                if n_malformed >= MAX_MALFORMED:
                    _log.warning("%s: %s", self.url, error)
                    return None
                raise
            except requests.exceptions.SSLError as error:
                raise InputError(f"{self.url}: {cause(_remove_keys(str(error)))}") from None
            except (TemporaryFailure, requests.RequestException):
                n_malformed = 0
                raise

        try:
            return retry(
                request,
                attempts=self._attempts,
                tell=lambda line: _log.warning("%s: %s", self.url, line),
                redact=_remove_keys,
            )
        except RetriesExhausted as error:
            raise InputError(
                f"{self.url} gave no answer in {self._attempts} attempts ({error}). "
                "Is it running, and is this its address? Answers that came are in the cache, "
                "if there is one (--set cache=FOLDER); run the same command again to resume."
            ) from None

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one request and return a chat completion, or {"refused": True}."""
        import requests

        response = requests.post(
            f"{self.url}/chat/completions",
            json=body,
            auth=_authorize,
            timeout=self._timeout,
            allow_redirects=False,  # a redirect would turn it into a GET
        )
        content = response.content
        try:
            completion = json.loads(content)
        except (ValueError, RecursionError):
            completion = None
        if response.status_code != 200:
            return self._handle_status(response, completion)
        if content.lstrip()[:1] == b"<":
            raise InputError(f"{self.url} answers with a web page. {_URL_ADVICE}")
        return _check_completion(completion, content)

    def _handle_status(self, response: requests.Response, body: Any) -> dict[str, Any]:
        """Raise the error of a status; return {"refused": True} if it is about these images."""
        status = response.status_code
        code, detail = _error(body)
        message = f"status {status}"
        if detail:
            message += f": {detail}"
        if code in _FILTER_CODES:
            return {"refused": True}
        if status in _RETRIED_STATUSES and code != "insufficient_quota":
            raise temporary_failure(
                response, self.url, message, "answers that came are in the cache, if there is one."
            )
        if status in (401, 403):
            variable = next((name for name in KEYS if os.environ.get(name, "").strip()), None)
            advice = (
                f"The key in {variable} was sent."
                if variable
                else f"No key was sent; put it into the environment variable {KEYS[0]}."
            )
        elif 300 <= status < 400 or status in (404, 405):
            advice = f"Is there a model '{self.model}'? {_URL_ADVICE}"
        else:
            advice = """Change fields of the request with --set body='{"name": VALUE or null}'."""
        raise InputError(f"{self.url} refuses ({message}). {advice}")


class _MalformedResponse(TemporaryFailure):
    """Response that is no chat completion."""


def _check_url(url: str) -> str:
    """Return the address before `/chat/completions`.

    Raises:
        InputError: it is no http or https address, or holds a user name or a query.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.username is not None or parts.query or parts.fragment:
        # the message does not show them: one of them may be a key
        raise InputError(
            f"The address on {parts.hostname} holds a user name or a query, which would end up in "
            f"records. The key is taken from the environment variable {' or '.join(KEYS)}."
        )
    if not is_http_url(url):
        raise InputError(f"{url!r} is no http or https address. {_URL_ADVICE}")
    return url.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _read_key() -> str:
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if key:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise InputError(f"{name} holds characters that are in no key.")
            return key
    return ""


def _authorize(request: Any) -> Any:
    """Add the key to a request. Passed as `auth`, it also keeps requests from reading .netrc."""
    key = _read_key()
    if key:
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _remove_keys(text: str) -> str:
    """Return a text without the keys, which a server may repeat."""
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        text = text.replace(key, "***") if key else text
    return text


def _user_message(images: Sequence[Image.Image], prompt: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        url = {"url": f"data:image/png;base64,{data}"}
        parts.append({"type": "image_url", "image_url": url})
    return {"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}


def _check_completion(completion: Any, content: bytes) -> dict[str, Any]:
    """Return a chat completion with at least one message.

    Raises:
        _MalformedResponse: it is something else.
    """
    try:
        if isinstance(completion["choices"][0]["message"], dict):
            return dict(completion)
    except (TypeError, KeyError, IndexError):
        pass
    detail = _error(completion)[1] or _remove_keys(content[:200].decode(errors="replace"))
    raise _MalformedResponse(f"no chat completion came, but {detail!r}")


def _message_text(content: Any) -> str:
    """Return the text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _token_count(completion: Mapping[str, Any], name: str) -> int | None:
    usage = completion.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _error(body: Any) -> tuple[str, str]:
    """Return (code, message) of an error in JSON, in any of the forms that servers use."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return "", _remove_keys(error)[:300]
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") or error.get("type") or ""
    message = error.get("message") or error.get("detail") or ""
    return str(code), _remove_keys(str(message))[:300]


def _sum_tail(tokens: Sequence[Any], text: str) -> float | None:
    """Sum the log-probabilities of the last tokens, those that spell the text.

    Args:
        tokens: for each token {id: {"logprob": ..., "decoded_token": ...}, ...}; the first entry
            is the token itself, further ones are alternatives.
        text: the text that the last tokens spell, apart from spaces around it.

    Returns:
        None if no number of last tokens spells the text.

    Example:
        >>> token = lambda text, p: {"7": {"logprob": p, "decoded_token": text}}
        >>> _sum_tail([None, token("it:", -9), token(" red", -1), token(" cars", -0.5)], "red cars")
        -1.5
    """
    spelled, total, wanted = "", 0.0, text.strip()
    # backwards from the end, until the tokens spell the whole text
    for entry in reversed(tokens):
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

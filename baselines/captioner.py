"""Captioner: a vision-language model describes the exemplars, shown as a grid or as crops.

The model runs on this machine (any image-text-to-text model of transformers) or behind an endpoint
with OpenAI's chat completions API. With `pmi` it chooses among its own candidates d the one with
the largest log p(d | images) - lambda log p(d | blank images), as MILAN chooses among its own.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import encoded_exemplars
from baselines.shared.answer_cache import AnswerCache
from baselines.shared.answer_cleaning import clean_answer, rejection_reason
from baselines.shared.local_vlm import LocalModel
from baselines.shared.openai_client import ChatClient
from baselines.shared.prompt_images import blank_images, draw_crop, draw_grid, read_region
from baselines.shared.vision_language import VisionLanguageModel
from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.schema import Unit

if TYPE_CHECKING:
    from PIL import Image

SPEC = MethodSpec(
    name="captioner",
    version="1.0",
    kind="method",
    title="What a vision-language model says that the exemplars' regions have in common",
    trained_on="what its model was trained on",
    requires=("vision-language model",),
)

Show = Literal["grid", "crops"]

_QUESTION = (
    "What do the bright parts have in common? Answer with one short phrase of at most ten words "
    "that describes the bright parts, and nothing else."
)
PROMPTS: dict[Show, str] = {
    "grid": "This is a grid of {n} pictures. In each of them one part is bright, and the rest is "
    f"darkened. {_QUESTION}",
    "crops": "Each of these {n} pictures is cut around a part that is bright, and the rest is "
    f"darkened. {_QUESTION}",
}
"""Prompts by `show`; `{n}` is the number of exemplars."""

OUTLINE_PROMPT = " The bright parts have thin pink outlines, which are no part of the pictures."
"""Sentence added to the prompt if regions are outlined."""

CACHE_VERSION = 1
"""Version of the question and answers in a cache file; files of other versions are not read."""


@dataclass(frozen=True)
class UnitCost:
    """Cost of a unit's description.

    Attributes:
        outcome: "ok", "no region", or why there is no description.
        seconds: time from the question to the answer when it was asked, pauses included.
        tokens_in, tokens_out: tokens read and written; None is unknown.
        cached: the answer came from the cache.
    """

    outcome: str
    seconds: float = 0.0
    tokens_in: int | None = 0
    tokens_out: int | None = 0
    cached: bool = False


@dataclass(repr=False)
class Captioner:
    """Describe each unit by a vision-language model's answer to a prompt with its exemplars.

    Exemplars with an empty mask are not shown; a unit without any other is abstained. An empty
    answer, a refusal and an answer with too many words are failures.

    Attributes:
        model: the vision-language model.
        show, prompt, blank, pmi, lam, n_candidates, outline, exemplars, side, max_words, parallel:
            see `create`.
        cache: answers by question.
        costs: cost of each unit described so far.
    """

    model: VisionLanguageModel
    show: Show
    prompt: str
    blank: bool
    pmi: bool
    lam: float
    n_candidates: int
    outline: bool
    exemplars: int
    side: int
    max_words: int
    parallel: int
    cache: AnswerCache
    spec: MethodSpec = SPEC
    costs: dict[Unit, UnitCost] = field(default_factory=dict)

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Tokens read and written for all units so far; None where any number is unknown."""
        paid = [cost for cost in self.costs.values() if not cost.cached]
        return _sum([cost.tokens_in for cost in paid]), _sum([cost.tokens_out for cost in paid])

    def describe(self, units: Any, context: Context) -> list[Description]:
        rows = list(encoded_exemplars(units, SPEC.name))  # all are checked before any is paid
        if self.parallel == 1:
            return [self._describe(unit, row) for unit, row in rows]
        pool = ThreadPoolExecutor(self.parallel)
        try:
            return list(pool.map(lambda pair: self._describe(*pair), rows))
        finally:
            # after an error, requests that have not begun are not made
            pool.shutdown(cancel_futures=True)

    def draw_images(self, row: Mapping[str, Any]) -> tuple[list[Image.Image], int]:
        """Draw the images that are shown for a unit.

        Args:
            row: `images` and `masks`, encoded, strongest first.

        Returns:
            The images and the number of exemplars in them.
        """
        from datasets import Image as Decoder

        decode = Decoder().decode_example
        exemplars = []
        pairs = list(zip(row["images"], row["masks"], strict=True))[: self.exemplars]
        for image, mask in pairs:
            region = read_region(decode(dict(mask)))
            if region.any():
                exemplars.append((decode(dict(image)).convert("RGB"), region))
        if not exemplars:
            return [], 0
        if self.show == "grid":
            images = [draw_grid(exemplars, self.side, self.outline)]
        else:
            images = [draw_crop(*pair, self.side, self.outline) for pair in exemplars]
        return (blank_images(images) if self.blank else images), len(exemplars)

    def _describe(self, unit: Unit, row: Mapping[str, Any]) -> Description:
        images, n = self.draw_images(row)
        if not images:
            self.costs[unit] = UnitCost("no region")
            return Description.abstained()
        answers, cached = self._ask(images, self.prompt.replace("{n}", str(n)))
        reason, descriptions = "no text", []
        for answer in answers["said"]:
            text = clean_answer(answer["text"])
            rejected = answer["reason"] or rejection_reason(text, self.max_words)
            score = _pmi(answer, self.lam) if self.pmi else None
            if rejected or (self.pmi and score is None):
                reason = rejected or "not scored"
            else:
                descriptions.append((text, score))
        self.costs[unit] = UnitCost(
            "ok" if descriptions else reason,
            answers["seconds"],
            answers["tokens_in"],
            answers["tokens_out"],
            cached,
        )
        if not descriptions:
            return Description.failed()
        # the first of equal scores; without `pmi` there is only one
        return Description.of(*max(descriptions, key=lambda pair: pair[1] or 0.0))

    def _ask(self, images: list[Image.Image], prompt: str) -> tuple[dict[str, Any], bool]:
        """Return the answers to a prompt and their cost, and whether they were in the cache.

        Returns:
            {"said": answers, "seconds": ..., "tokens_in": ..., "tokens_out": ...}, where an
            answer is {"text": ..., "reason": ..., "given": log p, "blank": log p}.
        """
        question = {
            "version": CACHE_VERSION,
            # a cache in memory is of one model; the identity of one on disk takes time
            "model": self.model.identity if self.cache.folder else None,
            "prompt": prompt,
            "pictures": [_image_digest(image) for image in images],
            "candidates": self.n_candidates if self.pmi else None,
        }
        return self.cache.get(question, lambda: self._ask_model(images, prompt))

    def _ask_model(self, images: list[Image.Image], prompt: str) -> dict[str, Any]:
        self.model.open()
        start = time.perf_counter()
        if self.pmi:
            answers = self.model.candidates(images, prompt, self.n_candidates)
        else:
            answers = [self.model.write(images, prompt)]
        tokens = [(answer.tokens_in, answer.tokens_out) for answer in answers]
        # Candidates are scored twice, with the exemplars and with blank images of the same sizes:
        # the second is the log p(d) of an answer that the prompt alone makes likely. Repeated
        # texts are scored once, and answers without words not at all.
        kept: list[dict[str, Any]] = []
        seen: set[str] = set()
        for answer in answers:
            if answer.text in seen:
                continue
            seen.add(answer.text)
            entry: dict[str, Any] = {"text": answer.text, "reason": answer.reason}
            if self.pmi and not answer.reason and has_words(answer.text):
                for name, shown in (("given", images), ("blank", blank_images(images))):
                    score = self.model.log_p(shown, prompt, answer)
                    entry[name], entry["reason"] = score.log_p, entry["reason"] or score.reason
                    tokens.append((score.tokens, 0))
            kept.append(entry)
        tokens_in, tokens_out = (_sum(column) for column in zip(*tokens, strict=True))
        return {
            "said": kept,
            "seconds": round(time.perf_counter() - start, 3),
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
        }


def create(
    model: str | None = None,
    url: str | None = None,
    show: Show = "grid",
    pmi: bool = False,
    lam: float = 0.2,
    candidates: int = 8,
    prompt: str | None = None,
    cache: str | None = None,
    blank: bool = False,
    outline: bool = True,
    exemplars: int = 15,
    side: int = 224,
    max_words: int = 30,
    max_tokens: int = 64,
    timeout: float = 120.0,
    attempts: int = 6,
    parallel: int = 4,
    body: Mapping[str, Any] | None = None,
) -> Captioner:
    """Return the method.

    Args:
        model: folder or name of an image-text-to-text model of transformers; with `url`, the name
            of the model at the endpoint.
        url: address of an endpoint with OpenAI's chat completions API, such as
            `http://localhost:8000/v1`. A key is read from the environment: MILAN_API_KEY or
            OPENAI_API_KEY.
        show: "grid", all exemplars in one image; "crops", one image around each region.
        pmi: choose among candidates by log p(d | images) - lam log p(d | blank images). An
            endpoint must return log-probabilities of a given text.
        lam: lambda, the weight of log p(d | blank images).
        candidates: number of candidates: beams of a local model, samples of an endpoint.
        prompt: prompt in place of `PROMPTS`; `{n}` is the number of exemplars.
        cache: folder that keeps every answer, so that no question is asked again.
        blank: show blank images in place of the exemplars, as a control.
        outline: draw a thin line around each region, which is hard to see in dark images without.
        exemplars: most exemplars shown of a unit, strongest first.
        side: side of an exemplar in pixels.
        max_words: most words of an answer; a longer one is a failure.
        max_tokens: most tokens of an answer.
        timeout: seconds without a byte from an endpoint after which it is asked again.
        attempts: most requests for one answer.
        parallel: requests at a time.
        body: fields of the requests besides or in place of the default ones; None leaves one out.

    Raises:
        InputError: no model, or an option out of range.
    """
    if not model:
        raise InputError(
            f"'{SPEC.name}' needs a vision-language model. Give one that transformers loads: "
            "--model FOLDER or NAME; or an endpoint and the name of its model: "
            "--model NAME --set url=http://localhost:8000/v1."
        )
    if show not in get_args(Show):
        raise InputError(f"show is {show!r}; expected one of {', '.join(get_args(Show))}.")
    for name, value in (("candidates", candidates), ("exemplars", exemplars), ("side", side),
                        ("max_words", max_words), ("max_tokens", max_tokens),
                        ("attempts", attempts), ("parallel", parallel)):  # fmt: skip
        if value < 1:
            raise InputError(f"{name} is {value!r}; at least 1 was expected.")
    if not timeout > 0 or not math.isfinite(lam):
        raise InputError(f"timeout is {timeout!r} and lam {lam!r}; expected seconds and a number.")
    if prompt is not None and not has_words(prompt):
        raise InputError("The prompt is empty; leave it out for the one that is built in.")
    if cache is not None and Path(cache).exists() and not Path(cache).is_dir():
        raise InputError(f"{cache} is a file; the cache is a folder.")
    vlm: VisionLanguageModel
    if url:
        vlm = ChatClient(
            url, model, max_tokens=max_tokens, attempts=attempts, timeout=timeout, body=body
        )
    else:
        vlm, parallel = LocalModel(model, max_tokens=max_tokens), 1
    if prompt is None:
        prompt = PROMPTS[show] + (OUTLINE_PROMPT if outline else "")
    return Captioner(
        vlm, show, prompt, blank, pmi, lam, candidates, outline,
        exemplars, side, max_words, parallel, AnswerCache(cache),
    )  # fmt: skip


def _image_digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


def _pmi(answer: Mapping[str, Any], lam: float) -> float | None:
    """Return log p(d | images) - lambda log p(d | blank images), rounded, or None."""
    given, blank = answer.get("given"), answer.get("blank")
    return None if given is None or blank is None else round(given - lam * blank, 3)


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return the sum of counts; None if any is None."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None

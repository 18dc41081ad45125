"""A vision-language model describes the exemplars, shown as one grid or as crops of their regions.

The model runs here (any image-text-to-text model of transformers) or behind an address that speaks
OpenAI's protocol. With `pmi` it chooses among its own candidates: the largest
log p(d | pictures) - lambda log p(d | blank pictures), as MILAN chooses among its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from baselines.framework.context import Context, encoded_exemplars
from baselines.framework.method import Description, MethodSpec
from baselines.framework.run import unit_keys
from baselines.shared.openai_client import (
    Answer,
    ChatClient,
    LogProbability,
    clean_answer,
    rejection_reason,
)
from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.schema import Unit
from milannotations.utils.cache import Cache, content_key
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    _Pictures = list[Image.Image]

SPEC = MethodSpec(
    name="captioner",
    version="1.0",
    kind="method",
    title="What a vision-language model says that the exemplars' regions have in common",
    trained_on="what its model was trained on",
    requires=("vision-language model",),
)

Show = Literal["grid", "crops"]

_ASKED = (
    "What do the bright parts have in common? Answer with one short phrase of at most ten words "
    "that describes the bright parts, and nothing else."
)
PROMPTS: dict[Show, str] = {
    "grid": "This is a grid of {n} pictures. In each of them one part is bright, and the rest is "
    f"darkened. {_ASKED}",
    "crops": "Each of these {n} pictures is cut around a part that is bright, and the rest is "
    f"darkened. {_ASKED}",
}
"""What is asked; `{n}` is the number of exemplars."""

OUTLINED = " The bright parts have thin pink outlines, which are no part of the pictures."
"""Follows what is asked, where they have."""

DIMMED = 0.25
"""What is left of a picture's brightness outside the mask, as in the pictures of 2022."""

LINE = 112
"""An outline is a pixel wide for so many pixels of the picture's side."""

COLUMNS = 5
"""Exemplars in a row of the grid."""

MARGIN = 0.2
"""What is shown around a region in a crop, as a part of the region's longer side."""

SMALLEST = 0.25
"""A crop's shorter side at least, as a part of the picture's."""

BLANK = (127, 127, 127)
"""The colour of blank pictures."""

VERSION = 1
"""Of files in the cache: others are read as absent."""


class VisionLanguageModel(Protocol):
    """A vision-language model; `identity` is what its answers depend on, as JSON."""

    @property
    def identity(self) -> dict[str, Any]: ...

    def open(self) -> None:
        """Load what is to be loaded, if it is not."""
        ...

    def write(self, pictures: _Pictures, prompt: str) -> Answer:
        """Return the likeliest answer."""
        ...

    def candidates(self, pictures: _Pictures, prompt: str, n: int) -> list[Answer]:
        """Return up to n answers."""
        ...

    def log_p(self, pictures: _Pictures, prompt: str, answer: Answer) -> LogProbability:
        """Return log p(answer | pictures, prompt)."""
        ...


@dataclass(frozen=True)
class UnitCost:
    """What a unit's description cost.

    Attributes:
        outcome: "ok", "no region", or why there is no description.
        seconds: from the question to the answer, when it was asked, pauses included.
        tokens_in, tokens_out: that it read and wrote; None is unknown.
        cached: it was asked before, and not again.
    """

    outcome: str
    seconds: float = 0.0
    tokens_in: int | None = 0
    tokens_out: int | None = 0
    cached: bool = False


@dataclass(repr=False)
class Captioner:
    """Shows each unit's exemplars to a vision-language model and takes what it says.

    Exemplars whose mask is empty are not shown; a unit that has no other gets no answer
    (abstained). An answer that is none, refuses, or says too much is a failure. `usage` holds what
    each unit cost, of the units described so far.
    """

    writer: VisionLanguageModel
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
    usage: dict[Unit, UnitCost] = field(default_factory=dict)

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Tokens that were read and written for all units so far; None where any is unknown."""
        used = [each for each in self.usage.values() if not each.cached]
        return _total([u.tokens_in for u in used]), _total([u.tokens_out for u in used])

    def describe(self, units: Any, context: Context) -> list[Description]:
        rows = (
            list(zip(unit_keys(units), encoded_exemplars(units), strict=True)) if len(units) else []
        )
        for unit, row in rows:
            if row["images"] is None or row["masks"] is None:
                raise InputError(
                    f"'{SPEC.name}' looks at exemplars, and {unit} has none: this edition holds "
                    "text alone."
                )
        if self.parallel == 1:
            return [self._describe(*row) for row in rows]
        pool = ThreadPoolExecutor(self.parallel)
        try:
            return list(pool.map(lambda row: self._describe(*row), rows))
        finally:
            pool.shutdown(cancel_futures=True)

    def _describe(self, unit: Unit, row: Mapping[str, Any]) -> Description:
        pictures, n = self.pictures(row)
        if not pictures:
            self.usage[unit] = UnitCost("no region")
            return Description.abstained()
        made, cached = self._ask(pictures, self.prompt.replace("{n}", str(n)))
        cost = (made["seconds"], made["tokens_in"], made["tokens_out"], cached)
        wrong, good = "no text", []
        for said in made["said"]:
            text = clean_answer(said["text"])
            problem = said["reason"] or rejection_reason(text, self.max_words)
            score = _score(said, self.lam) if self.pmi else None
            if problem or (self.pmi and score is None):
                wrong = problem or "not scored"
            else:
                good.append((text, score))
        self.usage[unit] = UnitCost("ok" if good else wrong, *cost)
        if not good:
            return Description.failed()
        return Description.of(*max(good, key=lambda said: said[1] or 0.0))  # the first, if several

    def pictures(self, row: Mapping[str, Any]) -> tuple[_Pictures, int]:
        """Return the pictures that are shown for a unit, and the number of exemplars in them.

        Args:
            row: `images` and `masks`, undecoded, strongest first.
        """
        from datasets import Image as Decoder

        decode, shown = Decoder().decode_example, []
        pairs = list(zip(row["images"], row["masks"], strict=True))[: self.exemplars]
        for image, mask in pairs:
            region = _region(decode(dict(mask)))
            if region.any():
                shown.append((decode(dict(image)).convert("RGB"), region))
        if not shown:
            return [], 0
        if self.show == "grid":
            made = [draw_grid(shown, self.side, self.outline)]
        else:
            made = [draw_crop(*pair, self.side, self.outline) for pair in shown]
        return (blank_images(made) if self.blank else made), len(shown)

    def _ask(self, pictures: _Pictures, prompt: str) -> tuple[dict[str, Any], bool]:
        """Return {"said": answers, "seconds": ..., "tokens_in": ...}, and if it was known."""
        asked = {
            "version": VERSION,
            # in memory alone, every question is to this model
            "model": self.writer.identity if self.cache.folder else None,
            "prompt": prompt,
            "pictures": [_digest(picture) for picture in pictures],
            "candidates": self.n_candidates if self.pmi else None,
        }
        return self.cache.get(asked, lambda: self._asked(pictures, prompt))

    def _asked(self, pictures: _Pictures, prompt: str) -> dict[str, Any]:
        self.writer.open()
        began, said = time.perf_counter(), []
        if self.pmi:
            answers = self.writer.candidates(pictures, prompt, self.n_candidates)
        else:
            answers = [self.writer.write(pictures, prompt)]
        tokens = [(answer.tokens_in, answer.tokens_out) for answer in answers]
        # a text that was said twice is scored once, and nonsense not at all
        seen: set[str] = set()
        for answer in answers:
            one: dict[str, Any] = {"text": answer.text, "reason": answer.reason}
            if answer.text in seen:
                continue
            seen.add(answer.text)
            if self.pmi and not answer.reason and has_words(answer.text):
                for name, looked in (("given", pictures), ("blank", blank_images(pictures))):
                    score = self.writer.log_p(looked, prompt, answer)
                    one[name], one["reason"] = score.log_p, one["reason"] or score.reason
                    tokens.append((score.tokens, 0))
            said.append(one)
        read_and_wrote = (_total(column) for column in zip(*tokens, strict=True))
        seconds = round(time.perf_counter() - began, 3)
        cost = dict(zip(("tokens_in", "tokens_out"), read_and_wrote, strict=True))
        return {"said": said, "seconds": seconds, **cost}


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
        model: folder or name of an image-text-to-text model of transformers; with `url`, what
            the endpoint calls its model.
        url: of an endpoint that speaks OpenAI's protocol, such as `http://localhost:8000/v1`.
            The key, if it wants one, is in the environment: MILAN_API_KEY or OPENAI_API_KEY.
        show: "grid", all exemplars in one picture; "crops", a picture around each region.
        pmi: choose among candidates by log p(d | pictures) - lam log p(d | blank pictures). An
            endpoint must give log-probabilities of a given text.
        lam: lambda.
        candidates: beams of a model that runs here; texts drawn from one that does not.
        prompt: what is asked, in place of `PROMPTS`; `{n}` is the number of exemplars.
        cache: folder that keeps every answer: what was asked before is not asked again.
        blank: show blank pictures in place of the exemplars, as a control.
        outline: draw a thin line around each region: in dark pictures it is hard to see without.
        exemplars: of a unit that are shown, strongest first.
        side: of an exemplar, in pixels.
        max_words: an answer of more has failed.
        max_tokens: of an answer.
        timeout: seconds until an endpoint that says nothing is asked again.
        attempts: requests for one answer, in all.
        parallel: requests at a time.
        body: fields of the requests besides or in place of ours; one that is None is left out.

    Raises:
        InputError: no model; an option that is out of range.
    """
    if not model:
        raise InputError(
            f"'{SPEC.name}' needs a vision-language model. Give one that transformers loads: "
            "model=FOLDER or NAME; or an endpoint and what it calls its model: "
            "url=http://localhost:8000/v1, model=NAME."
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
    writer: VisionLanguageModel
    if url:
        writer = ChatClient(
            url, model, max_tokens=max_tokens, attempts=attempts, timeout=timeout, body=body
        )
    else:
        writer, parallel = LocalModel(model, max_tokens=max_tokens), 1
    if prompt is None:
        prompt = PROMPTS[show] + (OUTLINED if outline else "")
    return Captioner(
        writer, show, prompt, blank, pmi, lam, candidates, outline,
        exemplars, side, max_words, parallel, AnswerCache(cache),
    )  # fmt: skip


# what is shown ----------------------------------------------------------------------------


def dim_outside(
    image: Image.Image, region: NDArray[np.bool_], side: int, outline: bool = True
) -> Image.Image:
    """Return a picture with a longer side of `side`, darkened outside its region.

    Args:
        image: RGB.
        region: (h, w); true where the unit responds.
        side: in pixels.
        outline: draw a line around the region, outside of it.

    Raises:
        InputError: the region has another size than the picture.
    """
    import numpy as np
    from PIL import Image as Pictures

    from milannotations.utils.contact_sheet import OUTLINE

    if region.shape != image.size[::-1]:
        raise InputError(f"A picture of {image.size[::-1]} with a mask of {region.shape}.")
    wide, high = (max(1, round(length * side / max(image.size))) for length in image.size)
    size = (wide, high)
    pixels = np.asarray(image.resize(size, Pictures.Resampling.BICUBIC))
    mask = Pictures.fromarray(region.astype(np.uint8) * 255)
    # the smallest region must not vanish from a picture that is made smaller
    small = size[0] < image.width
    how = Pictures.Resampling.BOX if small else Pictures.Resampling.NEAREST
    bright = np.asarray(mask.resize(size, how)) > (64 if small else 0)
    if not bright.any():
        bright = np.asarray(mask.resize(size, how)) > 0
    shown = np.where(bright[..., None], pixels, pixels * DIMMED)
    if outline:
        wide = max(1, side // LINE)
        around = np.asarray(Pictures.fromarray(bright).convert("L").filter(_wider(wide))) > 0
        shown[around & ~bright] = OUTLINE
    return Pictures.fromarray(shown.astype(np.uint8))


def draw_grid(
    shown: Sequence[tuple[Image.Image, NDArray[np.bool_]]], side: int, outline: bool = True
) -> Image.Image:
    """Return one picture of all exemplars, `COLUMNS` in a row, each in a square of `side`."""
    from PIL import Image as Pictures

    gap = max(2, side // 28)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Pictures.new(
        "RGB", (columns * (side + gap) + gap, rows * (side + gap) + gap), (255, 255, 255)
    )
    for place, pair in enumerate(shown):
        tile = Pictures.new("RGB", (side, side))
        picture = dim_outside(*pair, side, outline)
        tile.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * (side + gap) + gap, row * (side + gap) + gap))
    return sheet


def draw_crop(
    image: Image.Image, region: NDArray[np.bool_], side: int, outline: bool = True
) -> Image.Image:
    """Return what is around the region, with a longer side of `side`, darkened outside of it."""
    import numpy as np

    if region.shape != image.size[::-1]:
        raise InputError(f"A picture of {image.size[::-1]} with a mask of {region.shape}.")
    spans = [np.flatnonzero(region.any(axis)) for axis in (0, 1)]
    extents = [(int(span[0]), int(span[-1]) + 1) for span in spans]
    margin = round(MARGIN * max(high - low for low, high in extents))
    box = []
    for (low, high), length in zip(extents, image.size, strict=True):
        missing = max(0, round(SMALLEST * length) - (high - low + 2 * margin))
        box.append((max(0, low - margin - missing // 2), min(length, high + margin + missing // 2)))
    (left, right), (top, bottom) = box
    return dim_outside(
        image.crop((left, top, right, bottom)), region[top:bottom, left:right], side, outline
    )


def blank_images(pictures: _Pictures) -> _Pictures:
    """Return pictures of those sizes and of one colour, which show nothing."""
    from PIL import Image as Pictures

    return [Pictures.new("RGB", picture.size, BLANK) for picture in pictures]


def _wider(pixels: int) -> Any:
    from PIL import ImageFilter

    return ImageFilter.MaxFilter(2 * pixels + 1)


def _region(mask: Image.Image) -> NDArray[np.bool_]:
    import numpy as np

    pixels = np.asarray(mask)
    region: NDArray[np.bool_] = pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0
    return region


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size} ".encode() + picture.tobytes()).hexdigest()


def _score(said: Mapping[str, Any], lam: float) -> float | None:
    """Return log p(d | pictures) - lambda log p(d | blank pictures), rounded, or None."""
    given, blank = said.get("given"), said.get("blank")
    return None if given is None or blank is None else round(given - lam * blank, 3)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


# what was asked before --------------------------------------------------------------------


class AnswerCache:
    """Answers of a model, in memory and, if there is a folder, in a file per question.

    A file holds the question beside the answers; one that is damaged is made again. Of equal
    questions at one time, one is asked. Malformed answers are not kept.

    Args:
        folder: created with the first answer; None keeps answers in memory alone.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self._cache = Cache(folder)
        self._answers: dict[str, dict[str, Any]] = {}
        self._locks: dict[str, Lock] = {}

    def get(
        self, question: Mapping[str, Any], ask: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """Return the answers to a question, and whether they were known before."""
        key = content_key(question)
        with self._locks.setdefault(key, Lock()):
            if key in self._answers:
                return self._answers[key], True
            entry = self._cache.entry("answers", question, suffix=".json")
            known = entry.read(lambda path: _read(path, question))
            answers = ask() if known is None else known
            if any(answer["reason"] == "malformed" for answer in answers["said"]):
                return answers, False
            self._answers[key] = answers
            if known is None:
                entry.write_json({"asked": question, **answers})
            return answers, known is not None


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


# a model that runs here -------------------------------------------------------------------


class LocalModel:
    """An image-text-to-text model of transformers, asked about one unit at a time.

    Nothing is drawn: an answer is decoded greedily, candidates are beams.

    Args:
        name: folder or name.
        max_tokens: of an answer.
    """

    def __init__(self, name: str, *, max_tokens: int = 64) -> None:
        self.name, self._max_tokens = name, max_tokens

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The model's content: the commit of one from a hub, the digest of a folder's files."""
        from transformers.utils import cached_file

        try:
            folder = Path(str(cached_file(self.name, "config.json"))).parent
        except OSError as error:
            raise self._missing(error) from None
        settings = {"max_tokens": self._max_tokens}
        if folder.parent.name == "snapshots":
            return {"model": self.name, "commit": folder.name, **settings}
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = [p for p in files if not any(x[0] == "." for x in p.relative_to(folder).parts)]
        named = [[str(path.relative_to(folder)), sha256(path)] for path in files]
        return {"files": content_key(named), **settings}

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model, on the best device there is, and its processor."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from milannotations.exemplars.device import best_device

        try:
            processor = AutoProcessor.from_pretrained(self.name)
            model = AutoModelForImageTextToText.from_pretrained(self.name, dtype="auto")
        except (OSError, ValueError, ImportError) as error:
            raise self._missing(error) from None
        if not hasattr(processor, "tokenizer"):
            raise self._missing("it has no processor of pictures and texts")
        return model.eval().to(best_device()), processor

    def _missing(self, error: object) -> InputError:
        says = str(error).strip().split("\n")[0][:300]
        return InputError(
            f"'{self.name}' is no image-text-to-text model that transformers loads ({says}). Give "
            "the folder of one, or the name of one that is downloaded; or an endpoint: url=..."
        )

    def open(self) -> None:
        _ = self._loaded

    def write(self, pictures: _Pictures, prompt: str) -> Answer:
        return self._generate(pictures, prompt, num_beams=1)[0]

    def candidates(self, pictures: _Pictures, prompt: str, n: int) -> list[Answer]:
        """Return the n beams.

        Raises:
            InputError: they could not be scored.
        """
        model, _ = self._loaded
        if getattr(model.config, "is_encoder_decoder", False):
            raise InputError(
                f"'{self.name}' has an encoder and a decoder; pmi=True is for models that read "
                "prompt and answer as one text. Leave pmi out."
            )
        return self._generate(pictures, prompt, num_beams=n, num_return_sequences=n)

    def log_p(self, pictures: _Pictures, prompt: str, answer: Answer) -> LogProbability:
        """Return the summed log-probability of the answer's tokens, its end included."""
        import inspect

        import torch

        model, _ = self._loaded
        inputs, n = self._inputs(pictures, prompt), len(answer.ids)
        ids = torch.tensor([answer.ids], device=model.device)
        shape = inputs["input_ids"].shape
        for name, value in list(inputs.items()):
            if not isinstance(value, torch.Tensor) or value.shape[:2] != shape:
                continue
            if name == "input_ids":
                more = ids
            elif name == "attention_mask":
                more = torch.ones_like(ids)
            elif value.ndim == 2:
                more = torch.zeros_like(ids)  # kinds of token: 0 is text
            else:
                more = value[:, -1:].expand(-1, n, *value.shape[2:])
            inputs[name] = torch.cat([value, more.to(value.dtype)], 1)
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            inputs["logits_to_keep"] = n + 1  # all would be gigabytes
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits[0, -n - 1 : -1]
        told = logits.float().log_softmax(-1).gather(1, ids[0, :, None])
        return LogProbability(float(told.double().sum()), inputs["input_ids"].shape[1])

    def _generate(self, pictures: _Pictures, prompt: str, **how: int) -> list[Answer]:
        import torch

        model, processor = self._loaded
        inputs = self._inputs(pictures, prompt)
        asked = inputs["input_ids"][0].tolist()
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            made = model.generate(**inputs, **greedy, **how, max_new_tokens=self._max_tokens)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        answers = []
        for row in made.tolist():
            ids = row[len(asked) :] if row[: len(asked)] == asked else row
            end = next((place for place, each in enumerate(ids, 1) if each in ends), len(ids))
            text = processor.tokenizer.decode(ids[:end], skip_special_tokens=True)
            answers.append(Answer(text, "", len(asked), end, tuple(ids[:end])))
        return answers

    def _inputs(self, pictures: _Pictures, prompt: str) -> dict[str, Any]:
        """Return what the model takes: the pictures, then the prompt, in its own template."""
        import torch

        model, processor = self._loaded
        if getattr(processor, "chat_template", None):
            content: list[dict[str, Any]] = [{"type": "image", "image": p} for p in pictures]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            inputs = self._plain(pictures, prompt)
        return {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
        }

    def _plain(self, pictures: _Pictures, prompt: str) -> Any:
        """Return the inputs of a processor without a chat template.

        Some put the tokens of the pictures into the text themselves, and some want them there.
        """
        _, processor = self._loaded
        token = str(getattr(processor, "image_token", None) or "")
        known = processor.tokenizer.convert_tokens_to_ids(token) if token else None

        def made(text: str) -> Any:
            return processor(images=pictures, text=text, return_tensors="pt")

        try:
            inputs = made(prompt)
            if known is None or known in inputs["input_ids"]:
                return inputs
        except ValueError:
            if known is None:
                raise
        return made(token * len(pictures) + "\n" + prompt)

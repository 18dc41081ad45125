"""Vision-language models of transformers, run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.shared.vision_language import Answer, LogProbability
from milannotations.errors import InputError
from milannotations.utils.cache import content_key
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from PIL import Image


class LocalModel:
    """An image-text-to-text model of transformers, which answers one prompt at a time.

    Nothing is sampled: an answer is decoded greedily, candidates are the beams of a beam search.

    Args:
        name: folder or name of the model.
        max_tokens: most tokens of an answer.
    """

    def __init__(self, name: str, *, max_tokens: int = 64) -> None:
        self.name, self._max_tokens = name, max_tokens

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Identity of the model: its commit on the hub, or the digest of its folder's files."""
        from transformers.utils import cached_file

        try:
            folder = Path(str(cached_file(self.name, "config.json"))).parent
        except OSError as error:
            raise self._load_error(error) from None
        settings = {"max_tokens": self._max_tokens}
        # the hub's cache has a folder per commit: .../snapshots/COMMIT
        if folder.parent.name == "snapshots":
            return {"model": self.name, "commit": folder.name, **settings}
        digests = [
            [str(path.relative_to(folder)), sha256(path)]
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts)
        ]
        return {"files": content_key(digests), **settings}

    def open(self) -> None:
        """Load the model if it is not loaded yet."""
        _ = self._loaded

    def write(self, images: Sequence[Image.Image], prompt: str) -> Answer:
        """Return the greedily decoded answer."""
        return self._generate(images, prompt, num_beams=1)[0]

    def candidates(self, images: Sequence[Image.Image], prompt: str, n: int) -> list[Answer]:
        """Return the n beams of a beam search.

        Raises:
            InputError: the model has an encoder and a decoder, which `log_p` cannot score.
        """
        model, _ = self._loaded
        if getattr(model.config, "is_encoder_decoder", False):
            raise InputError(
                f"'{self.name}' has an encoder and a decoder, and --set pmi=true is for models "
                "that read prompt and answer as one text. Leave out --set pmi=true."
            )
        return self._generate(images, prompt, num_beams=n, num_return_sequences=n)

    def log_p(self, images: Sequence[Image.Image], prompt: str, answer: Answer) -> LogProbability:
        """Return the summed log-probability of the answer's tokens, its end included."""
        import inspect

        import torch

        model, _ = self._loaded
        inputs, n_tokens = self._inputs(images, prompt), len(answer.ids)
        ids = torch.tensor([answer.ids], device=model.device)
        # Append the answer to the prompt, in every input that has a value per token of it.
        shape = inputs["input_ids"].shape
        for name, value in list(inputs.items()):
            if not isinstance(value, torch.Tensor) or value.shape[:2] != shape:
                continue
            if name == "input_ids":
                tail = ids
            elif name == "attention_mask":
                tail = torch.ones_like(ids)
            elif value.ndim == 2:
                tail = torch.zeros_like(ids)  # token types: 0 is text
            else:
                tail = value[:, -1:].expand(-1, n_tokens, *value.shape[2:])
            inputs[name] = torch.cat([value, tail.to(value.dtype)], 1)
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            # those that predict the answer; logits of all tokens would be gigabytes
            inputs["logits_to_keep"] = n_tokens + 1
        with torch.inference_mode():
            # the logits at a token predict the next one, so they start one before the answer
            logits = model(**inputs, use_cache=False).logits[0, -n_tokens - 1 : -1]
        log_p = logits.float().log_softmax(-1).gather(1, ids[0, :, None])  # (token, 1)
        return LogProbability(float(log_p.double().sum()), inputs["input_ids"].shape[1])

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model, on the best device available, and its processor."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from milannotations.exemplars.device import best_device

        try:
            processor = AutoProcessor.from_pretrained(self.name)
            model = AutoModelForImageTextToText.from_pretrained(self.name, dtype="auto")
        except (OSError, ValueError, ImportError) as error:
            raise self._load_error(error) from None
        if not hasattr(processor, "tokenizer"):
            raise self._load_error("it has no processor of images and texts")
        return model.eval().to(best_device()), processor

    def _load_error(self, error: object) -> InputError:
        cause = str(error).strip().split("\n")[0][:300]
        return InputError(
            f"'{self.name}' is no image-text-to-text model that transformers loads ({cause}). Give "
            "the folder of one, or the name of one that is downloaded: --model MODEL; or an "
            "endpoint: --set url=URL."
        )

    def _generate(self, images: Sequence[Image.Image], prompt: str, **options: int) -> list[Answer]:
        """Return the answers that `generate` returns with these options, without sampling."""
        import torch

        model, processor = self._loaded
        inputs = self._inputs(images, prompt)
        prompt_ids = inputs["input_ids"][0].tolist()
        # a model's own generation config may sample
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            outputs = model.generate(**inputs, **greedy, **options, max_new_tokens=self._max_tokens)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        answers = []
        for row in outputs.tolist():
            # models without a separate encoder repeat the prompt
            ids = row[len(prompt_ids) :] if row[: len(prompt_ids)] == prompt_ids else row
            # tokens up to the first end; what follows is padding
            n_tokens = next((n for n, token in enumerate(ids, 1) if token in ends), len(ids))
            text = processor.tokenizer.decode(ids[:n_tokens], skip_special_tokens=True)
            answers.append(Answer(text, "", len(prompt_ids), n_tokens, tuple(ids[:n_tokens])))
        return answers

    def _inputs(self, images: Sequence[Image.Image], prompt: str) -> dict[str, Any]:
        """Return the model's inputs: the images, then the prompt, in its own template."""
        import torch

        model, processor = self._loaded
        if getattr(processor, "chat_template", None):
            content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            inputs = self._plain_inputs(images, prompt)
        return {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
        }

    def _plain_inputs(self, images: Sequence[Image.Image], prompt: str) -> Any:
        """Return the inputs of a processor without a chat template.

        Some processors put the image tokens into the text themselves, others expect them there.
        """
        _, processor = self._loaded
        token = str(getattr(processor, "image_token", None) or "")
        token_id = processor.tokenizer.convert_tokens_to_ids(token) if token else None

        def process(text: str) -> Any:
            return processor(images=images, text=text, return_tensors="pt")

        try:
            inputs = process(prompt)
            if token_id is None or token_id in inputs["input_ids"]:
                return inputs
        except ValueError:
            # raised by those that count the image tokens in the text
            if token_id is None:
                raise
        return process(token * len(images) + "\n" + prompt)

"""Model folders: how a model is written, read, pushed to the hub and found by name.

FOLDER/
  config.json         `Config`
  model.safetensors   weights of decoder, language model and encoder
  README.md           model card
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from milan.config import Config, EncoderConfig
from milan.tokenizer import Vocabulary
from milannotations.errors import InputError, some
from milannotations.utils.files import replacing

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SHIPPED = {"mini": Path(__file__).parent / "data" / "mini"}
"""Folders of the models that are part of this package, by name."""

Model = TypeVar("Model", bound="PretrainedModel")

CARD = """---
library_name: milannotations
tags:
- interpretability
- neuron-descriptions
---
# MILAN

Describes units of vision networks from the regions of images that excite them (Hernandez et
al., *Natural Language Descriptions of Deep Visual Features*, ICLR 2022): a beam of {beam}
descriptions by log p(d | exemplars), reranked by log p(d | exemplars) - {lam:g} log p(d). Its
encoder is `{encoder}` ({features:,} features per exemplar); its vocabulary has {words:,} words.

    from milan import Milan

    model = Milan.from_pretrained("this folder, or its name on the hub")
    print(model.describe(images, masks).text)

Its descriptions are only as general as its training data. A model trained on the edition `mini`
learned from simulated annotators of a synthetic world, and knows nothing of photographs.

How it was made:

```json
{made}
```
"""


class PretrainedModel(nn.Module, ModelHubMixin, library_name="milannotations"):  # type: ignore[call-arg]
    """Base class of a model that is saved to, and loaded from, a folder or the hub.

    Attributes:
        config: all that its constructor needs.
        vocabulary: its words.
    """

    config: Config
    vocabulary: Vocabulary

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the model as a folder, and push it to the hub if asked; see huggingface_hub."""
        url: str | None = super().save_pretrained(save_directory, **options)
        return url

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the card that is written beside the weights."""
        return ModelCard(
            CARD.format(
                encoder=self.config.encoder.backbone,
                features=self.config.encoder.feature_size,
                words=len(self.config.vocabulary),
                lam=self.config.lam,
                beam=self.config.beam,
                made=json.dumps(self.config.made or {}, indent=1, sort_keys=True),
            )
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        # a backbone that was loaded without its unused head has no weights to save there
        skipped = _missing_entries(self.config)
        state = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in self.state_dict().items()
            if name not in skipped
        }
        with replacing(save_directory / WEIGHTS) as temporary:
            save_file(state, temporary)
            temporary.chmod(0o644)  # safetensors writes files that only their owner can read
        with replacing(save_directory / CONFIG) as temporary:
            temporary.write_text(json.dumps(asdict(self.config), indent=1, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(
        cls: type[Model], pretrained_model_name_or_path: str | Path, **options: Any
    ) -> Model:
        """Return a model in evaluation mode, from a folder or by a name on the hub.

        Args:
            pretrained_model_name_or_path: folder, name, or `mini`: the model of the mini world,
                which is part of this package.
            options: `revision`, `token` and so on; see huggingface_hub.

        Raises:
            InputError: no such folder or name; a file that is missing, damaged, or of something
                else; a vocabulary that does not fit the weights.
        """
        name = str(pretrained_model_name_or_path)
        folder = SHIPPED.get(name, Path(name))
        try:
            if folder.is_dir():
                files = [folder / file for file in (CONFIG, WEIGHTS)]
            else:
                files = [Path(hf_hub_download(name, file, **options)) for file in (CONFIG, WEIGHTS)]
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise InputError(
                f"No model '{name}': no folder of that name, and the hub says: "
                f"{str(error).splitlines()[0]} Expected a folder that 'milan train' or 'milan "
                "convert' wrote, or a name on the hub."
            ) from None
        for path in files:
            if not path.is_file():
                raise InputError(
                    f"{path.parent} is no model: it has no {path.name}. Expected {CONFIG} and "
                    f"{WEIGHTS}, as 'milan train' and 'milan convert' write them."
                )
        config, state = _read_config(files[0]), _read_weights(files[1])
        model = cls(config)
        model._load_weights(state, files[1])
        return model.eval()

    @classmethod
    def _from_pretrained(cls: type[Model], **_: Any) -> Model:
        raise NotImplementedError("from_pretrained reads the folder itself")

    def _load_weights(self, state: dict[str, Tensor], file: Path) -> None:
        """Load weights into the model.

        Raises:
            InputError: they are not those of the config.
        """
        embedding = state.get("decoder.embedding.weight")
        rows = 0 if embedding is None else embedding.shape[0]
        if rows != len(self.vocabulary):
            raise InputError(
                f"{file.parent}: the vocabulary of {CONFIG} has {len(self.vocabulary):,} tokens "
                f"(4 special ones among them), the weights have {rows:,}. They are of two models."
            )
        try:
            missing, unexpected = self.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise InputError(
                f"{file} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
            ) from None
        wrong = [*(set(missing) - _missing_entries(self.config)), *unexpected]
        if wrong:
            raise InputError(
                f"{file} does not fit {CONFIG}: {some(sorted(wrong))} are missing or unexpected."
            )


def _missing_entries(config: Config) -> set[str]:
    """Return the names of weights that a model's encoder has not got, and does not need."""
    return {f"encoder.backbone.{name}" for name in config.encoder.missing}


def _read_config(path: Path) -> Config:
    try:
        content = _tuples(json.loads(path.read_text(encoding="utf-8")))
        return Config(**{**content, "encoder": EncoderConfig(**_tuples(content["encoder"]))})
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is not the configuration of a model: {str(error).splitlines()[0]}"
        ) from None


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); is the copy complete?"
        ) from None


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values with tuples in place of lists."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }

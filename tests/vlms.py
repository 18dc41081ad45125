"""Tiny image-text-to-text models of transformers on disk: real ones, with random weights.

folder = llava(tmp_path / "llava")
AutoModelForImageTextToText.from_pretrained(folder)
"""

from pathlib import Path

WORDS = [
    *("red", "green", "blue", "purple", "orange", "yellow", "round", "striped", "dotted", "plain"),
    *("circles", "squares", "stars", "rings", "words", "faces", "things", "parts", "bright"),
    *("dark", "small", "large", "of", "with", "and", "in", "the", "on", "a"),
]

LLAVA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(*special, **named):
    """Return a tokenizer of whole words, joined with spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "<s>", "</s>", "<pad>", *special, *WORDS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(special),
        **named,
    )


def llava(folder, *, seed=0, template=True):
    """Save a LLaVA of CLIP (32 px images) and Llama, and return the folder."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer("<image>")
    seen = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=seen,
        text_config=LlamaConfig(**_text(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=LLAVA_TEMPLATE if template else None,
    )  # fmt: skip
    return _saved(folder, LlavaForConditionalGeneration, config, processor, seed)


def qwen(folder, *, seed=0):
    """Save a Qwen2-VL, whose positions have three axes and whose images keep their shape."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*special)
    ids = dict(zip(special, words.convert_tokens_to_ids(list(special)), strict=True))
    text = {**_text(words), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
    text["rope_parameters"]["rope_theta"] = 10000.0
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
            "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    how = {
        "patch_size": 8, "merge_size": 2, "temporal_patch_size": 2,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
    }  # fmt: skip
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**how), words, Qwen2VLVideoProcessor(**how),
        chat_template=QWEN_TEMPLATE,
    )  # fmt: skip
    return _saved(folder, Qwen2VLForConditionalGeneration, config, processor, seed)


def _text(words):
    return {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 2048, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip


def _saved(folder, kind, config, processor, seed):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval()
        # larger weights than at the start of training: what is said depends on what is seen
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.3 if "vision" not in name else 0.15)
            # and it is words
            model.lm_head.weight[: len(processor.tokenizer) - len(WORDS)] = 0
    folder = Path(folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

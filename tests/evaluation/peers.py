"""Tiny models of other people's families with random weights, built from their configurations as published ones are."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 320,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
SIGHT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VQ = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}


def template(before: str, image: str, after: str, opened: str) -> str:
    """A chat template of the usual form."""
    part = "{{ '" + image + "' if part.type == 'image' else part.text }}"
    turn = before + "{% for part in message.content %}" + part + "{% endfor %}" + after
    return "{% for message in messages %}" + turn + "{% endfor %}" + opened


def chatml(image: str) -> str:
    return template("<|im_start|>{{ message.role }}\n", image, "<|im_end|>\n", "<|im_start|>assistant\n")


def tokenizer(*words: str, **special: str) -> PreTrainedTokenizerFast:
    """Bytes, then pad, bos and eos, then the family's own words, of which some have names."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<pad>", "<s>", "</s>", *words])
    ends = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **ends, extra_special_tokens=special)


def qwen(kind: str) -> tuple[Any, list[Any], dict[str, Any]]:
    """Qwen2-VL and Qwen2.5-VL."""
    words = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    made = tokenizer(*words, image_token="<|image_pad|>", video_token="<|video_pad|>")
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    sight = {"depth": 1, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
    if kind == "Qwen2VL":
        sight |= {"embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2}
    else:
        sight |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16, "window_size": 16}
        sight |= {"fullatt_block_indexes": [0]}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    ids = dict(zip(names, made.convert_tokens_to_ids(list(words)), strict=True))
    config = getattr(transformers, f"{kind}Config".replace("Qwen25VL", "Qwen2_5_VL"))(
        text_config=TEXT | {"rope_parameters": rope}, vision_config=sight, **ids
    )
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    chat = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    return config, [images, made], {"chat_template": chat}


def internvl() -> tuple[Any, list[Any], dict[str, Any]]:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    made = tokenizer(*names.values(), "<video>", **names, video_token="<video>")
    config = transformers.InternVLConfig(
        vision_config=SIGHT | {"image_size": [16, 16], "patch_size": [4, 4]},
        text_config=TEXT | {"model_type": "qwen2"},
        image_token_id=made.context_image_token_id,
        image_seq_length=4,
    )
    images = transformers.GotOcr2ImageProcessorPil(size={"height": 16, "width": 16}, max_patches=2)
    return config, [images, made], {"chat_template": chatml("<IMG_CONTEXT>\n"), "image_seq_length": 4}


def llava() -> tuple[Any, list[Any], dict[str, Any]]:
    made = tokenizer("<image>", image_token="<image>")
    config = transformers.LlavaConfig(
        vision_config=SIGHT | {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8},
        text_config=TEXT | {"model_type": "llama"},
        image_token_index=made.image_token_id,
        image_seq_length=4,
    )
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    chat = template("{{ message.role.upper() }}: ", "<image>\n", " ", "ASSISTANT:")
    how = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return config, [images, made], {"chat_template": chat, **how}


def fuyu() -> tuple[Any, list[Any], dict[str, Any]]:
    """Has no chat template, and puts its pictures before the text by itself.

    Its tokenizer puts a mark of its own before every text, also before a picture's tokens; its processor relies on it.
    """
    words = ["|SPEAKER|", "|NEWLINE|", "<0x04>"]
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *words, *letters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.normalizer = normalizers.Prepend("_")
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\|[A-Z]+\||<0x04>|."), "isolated")
    inner.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = transformers.FuyuConfig(
        text_config=TEXT | {"model_type": "persimmon"}, patch_size=8, image_token_id=vocabulary["|SPEAKER|"]
    )
    patch = {"height": 8, "width": 8}
    images = transformers.FuyuImageProcessorPil(size={"height": 32, "width": 32}, patch_size=patch)
    return config, [images, made], {}


def chameleon() -> tuple[Any, list[Any], dict[str, Any]]:
    """Has no chat template."""
    made = tokenizer(
        "<image>", "<racm3:break>", "<eoss>", *(f"IMGIMG{letter}Z" for letter in "ABCDEFGH"), image_token="<image>"
    )
    codes = {word: number for word, number in made.get_vocab().items() if "IMGIMG" in word}
    config = transformers.ChameleonConfig(
        **TEXT,
        vocabulary_map=codes | {"<image>": made.image_token_id},
        vq_config=VQ | {"embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "resolution": 16},
    )
    made.sep_token = "<s>"
    crop = {"height": 16, "width": 16}
    images = transformers.ChameleonImageProcessorPil(size={"shortest_edge": 16}, crop_size=crop)
    return config, [images, made], {"image_seq_length": 64}


def emu3() -> tuple[Any, list[Any], dict[str, Any]]:
    names = {"image_token": "<image>", "boi_token": "<|image start|>", "eoi_token": "<|image end|>"}
    names |= {"image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>", "eol_token": "<|extra_200|>"}
    codes = [f"<|visual token {code:06d}|>" for code in range(8)]
    made = tokenizer(*names.values(), *codes, **names)
    config = transformers.Emu3Config(
        text_config=TEXT,
        vq_config=VQ | {"codebook_size": 8, "embed_dim": 4, "hidden_size": 32, "channel_multiplier": [1, 1, 1, 1]},
        vocabulary_map={word: number for word, number in made.get_vocab().items() if len(word) > 1},
    )
    images = transformers.Emu3ImageProcessor(min_pixels=1024, max_pixels=1024)
    return (
        config,
        [images, made],
        {"chat_template": template("{{ message.role.upper() }}: ", "<image>", " ", "ASSISTANT:")},
    )


def gemma3() -> tuple[Any, list[Any], dict[str, Any]]:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    made = tokenizer(*names.values(), **names)
    config = transformers.Gemma3Config(
        vision_config=SIGHT | {"image_size": 16, "patch_size": 4},
        text_config=TEXT,
        mm_tokens_per_image=4,
        image_token_index=made.image_token_id,
        boi_token_index=made.boi_token_id,
        eoi_token_index=made.eoi_token_id,
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    chat = template("{{ message.role }}\n", "<start_of_image>", "\n", "model\n")
    return config, [images, made], {"chat_template": "<s>" + chat, "image_seq_length": 4}


FAMILIES: dict[str, Callable[[], tuple[Any, list[Any], dict[str, Any]]]] = {
    "Qwen2VL": partial(qwen, "Qwen2VL"),
    "Qwen2_5_VL": partial(qwen, "Qwen25VL"),
    "InternVL": internvl,
    "Llava": llava,
    "Fuyu": fuyu,
    "Chameleon": chameleon,
    "Emu3": emu3,
    "Gemma3": gemma3,
}
"""Family to its configuration, the parts of its processor and the settings of it."""


def make_peer(family: str, folder: Path) -> Path:
    """Save such a model as its makers do: weights, tokenizer and the settings of processor and pictures."""
    config, parts, settings = FAMILIES[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    settings = dict(settings)
    if chat := settings.pop("chat_template", None):
        (folder / "chat_template.jinja").write_text(chat)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": f"{family}Processor", **settings}))
    return folder

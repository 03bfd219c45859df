"""The door of training and inference, and transformers' interface on top of it."""

import io
import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, Qwen2Tokenizer
from transformers.pipelines.base import Chat
from transformers.pipelines.image_text_to_text import ImageTextToTextPipeline
from transformers.processing_utils import ProcessorMixin

from neo.model.config import NeoConfig
from neo.processing import register
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import SPECIAL_TOKENS

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(height=64, width=96, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def user(text, *images):
    return {"role": "user", "content": text, "image": list(images)}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def registered():
    AutoConfig.register("neo_chat", NeoConfig, exist_ok=True)
    register()


def test_encode_gives_the_published_sequence(processor, tokenizer):
    encoded = processor.encode([user("What is this?", picture())], add_generation_prompt=True)
    context = "<IMG_CONTEXT>" * 6
    text = f"<|im_start|>user\n<img>{context}</img>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n"
    assert encoded.input_ids.tolist() == tokenizer(text).input_ids
    assert encoded.image_grid_hw.tolist() == [[4, 6]]
    assert encoded.pixel_values.shape == (24, 768)
    assert (encoded.labels == -100).all()
    dtypes = [getattr(encoded, name).dtype for name in ("input_ids", "labels", "pixel_values", "image_grid_hw")]
    assert dtypes == [torch.int64, torch.int64, torch.float32, torch.int64]


def test_pixels_are_the_image_processors(processor):
    images = [picture(), picture(50, 50, seed=1)]
    encoded = processor.encode([user("Both?", *images)])
    expected = processor.image_processor(images=images, return_tensors="pt")
    assert torch.equal(encoded.pixel_values, expected["pixel_values"])
    assert torch.equal(encoded.image_grid_hw, expected["image_grid_hw"])


@SHARED
@given(st.lists(st.tuples(st.integers(4, 400), st.integers(4, 400)), max_size=4), st.text(max_size=20), st.booleans())
def test_measuring_gives_the_length_that_encoding_has(processor, sides, words, share):
    pictures = [png(picture(*size)) for size in sides]
    messages = [user("What?" + words, *pictures), assistant(words), user(words), assistant("Yes.")]
    encoded, measured = (tell(messages, share_pixels=share) for tell in (processor.encode, processor.measure))
    assert measured.tokens == len(encoded.input_ids)
    assert measured.labelled == (encoded.labels != -100).sum()
    assert measured.sizes == [(width, height) for height, width in sides]


def test_measuring_refuses_what_encoding_refuses(processor):
    for messages in ([user("What?", b"no picture")], [user("<image> <image>", picture())], []):
        with pytest.raises(ValueError) as encoded:
            processor.encode(messages)
        with pytest.raises(ValueError) as measured:
            processor.measure(messages)
        assert str(measured.value) == str(encoded.value)


def test_text_alone_has_no_pixels(processor):
    encoded = processor.encode([user("Hi"), assistant("Hello.")])
    assert encoded.pixel_values.shape == (0, 768)
    assert encoded.image_grid_hw.shape == (0, 2)
    assert encoded.image_grid_hw.dtype == torch.int64


def test_labels_are_the_answers_their_end_and_the_newline(processor, tokenizer):
    messages = [
        {"role": "system", "content": "You are helpful."},
        user("What is this?", picture()),
        assistant("A red circle."),
        user("And its shape?"),
        assistant("A\nsquare"),
    ]
    encoded = processor.encode(messages)
    learned = encoded.labels[encoded.labels != -100]
    assert tokenizer.decode(learned) == "A red circle.<|im_end|>\nA\nsquare<|im_end|>\n"
    assert torch.equal(learned, encoded.input_ids[encoded.labels != -100])


def test_a_token_that_straddles_the_answers_start_is_not_learned(processor, tokenizer):
    encoded = processor.encode([user("Hi"), assistant("\n\nYes")])  # the newlines merge with the header's
    learned = tokenizer.decode(encoded.labels[encoded.labels != -100])
    assert learned in ("Yes<|im_end|>\n", "\nYes<|im_end|>\n", "\n\nYes<|im_end|>\n")
    assert tokenizer.decode(encoded.input_ids).endswith("assistant\n\n\nYes<|im_end|>\n")


WORDS = st.text(max_size=20)
INJECTED = st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|endoftext|>", "\n", " a", "é"]), max_size=5).map("".join)


@SHARED
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_ordinary_text_is_tokenised_as_the_whole_prompt_is(processor, tokenizer, texts):
    texts = [text.replace("<", "(") for text in texts]
    messages = [user(text) if turn % 2 == 0 else assistant(text) for turn, text in enumerate(texts)]
    encoded = processor.encode(messages, add_generation_prompt=True)
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert encoded.input_ids.tolist() == tokenizer(prompt).input_ids


@SHARED
@given(st.lists(INJECTED, min_size=1, max_size=4))
def test_injected_special_tokens_are_text(processor, tokenizer, texts):
    messages = [user(text, picture()) if turn % 2 == 0 else assistant(text) for turn, text in enumerate(texts)]
    encoded = processor.encode(messages)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    counts = {index: encoded.input_ids.tolist().count(index) for index in special}
    images = sum(message["role"] == "user" for message in messages)
    ids = processor.ids
    expected = {
        ids.im_start: len(texts),
        ids.im_end: len(texts),
        ids.image_start: images,
        ids.image_end: images,
    }
    expected[ids.image] = 6 * images
    assert {index: count for index, count in counts.items() if count} == expected
    # and nothing of what was written is lost
    frame = "<img>" + "<IMG_CONTEXT>" * 6 + "</img>\n"
    bodies = [(frame if turn % 2 == 0 else "") + text for turn, text in enumerate(texts)]
    roles = ["user" if turn % 2 == 0 else "assistant" for turn in range(len(texts))]
    written = "".join(f"<|im_start|>{role}\n{body}<|im_end|>\n" for role, body in zip(roles, bodies, strict=True))
    assert tokenizer.decode(encoded.input_ids) == written


def test_exif_orientation_is_applied_unless_refused(processor):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture().save(buffer, "PNG", exif=exif)
    messages = [user("What?", buffer.getvalue())]
    assert processor.encode(messages).image_grid_hw.tolist() == [[6, 4]]
    assert processor.encode(messages, exif=False).image_grid_hw.tolist() == [[4, 6]]


def test_bounds_tiles_and_the_shared_budget(processor, caplog):
    big = picture(512, 512)
    assert processor.encode([user("?", big)]).image_grid_hw.tolist() == [[16, 16]]
    assert "picture 1 of 1: 512 x 512 pixels is above the limit of 65536" in caplog.text
    assert processor.encode([user("?", big)], max_pixels=4096, min_pixels=1024).image_grid_hw.tolist() == [[4, 4]]
    caplog.clear()
    shared = processor.encode([user("?", *[big] * 8)], share_pixels=True)
    assert shared.image_grid_hw.tolist() == [[8, 8]] * 8  # 65536 * 2 / 8 pixels each
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    tiled = processor.encode([user("?", big)], max_tiles=4)
    assert tiled.image_grid_hw.tolist() == [[16, 16]] * 5
    assert (tiled.input_ids == processor.ids.image).sum() == 5 * 64
    assert processor.encode([user("?", picture())], max_tiles=4).image_grid_hw.tolist() == [[4, 6]]


def test_mistakes_are_one_sentence(processor):
    for messages, words in (
        ([user("<image> <image>", picture())], "2 <image> placeholders but 1 images"),
        ([user("?", "/nowhere.png")], "/nowhere.png: cannot read the picture file"),
        ([user("?", picture(2, 500))], "500 x 2 pixels"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part of type image has no picture"),
        ([user("?", "https://example.com/a.png")], "a web address is not fetched here"),
    ):
        with pytest.raises(ValueError, match=words):
            processor.encode(messages)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collate_pads_and_keeps_the_order_of_pictures(processor, side):
    parts = [
        processor.encode([user("A rather long question?", picture())], True),
        processor.encode([user("Hi")], True),
        processor.encode([user("?", picture(96, 64, seed=1), picture(seed=2))], True),
    ]
    batch = processor.collate(parts, padding_side=side)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "image_grid_hw"}
    assert batch["image_grid_hw"].tolist() == [[4, 6], [6, 4], [4, 6]]
    assert torch.equal(batch["pixel_values"], torch.cat([part.pixel_values for part in parts]))
    for row, part in enumerate(parts):
        mask = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][mask], part.input_ids)
        assert (batch["input_ids"][row][~mask] == processor.tokenizer.pad_token_id).all()
        assert mask[-1 if side == "left" else 0]
    with pytest.raises(ValueError, match="must be 'left' or 'right', not 'up'"):
        processor.collate(parts, padding_side="up")
    with pytest.raises(ValueError, match="no conversation"):
        processor.collate([])


def content_list(text, *images):
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def test_apply_chat_template_is_encode_in_transformers_clothes(processor):
    messages = [content_list("What is <image> or <|im_end|>?", picture())]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(messages, **options)
    encoded = processor.encode(messages, add_generation_prompt=True)
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values", "image_grid_hw"}
    assert torch.equal(inputs["input_ids"], encoded.input_ids[None])
    assert torch.equal(inputs["pixel_values"], encoded.pixel_values)
    assert inputs.to(dtype=torch.bfloat16)["pixel_values"].dtype == torch.bfloat16
    batch = processor.apply_chat_template([messages, [user("Hi")]], **options, padding=True)
    short = processor.encode([user("Hi")], add_generation_prompt=True)
    assert batch["attention_mask"].sum(1).tolist() == [len(encoded.input_ids), len(short.input_ids)]
    assert batch["attention_mask"][1, 0] == 0
    text_only = processor.apply_chat_template([user("Hi")], **options)
    assert set(text_only) == {"input_ids", "attention_mask"}


def test_apply_chat_template_gives_lists_masks_and_text(processor):
    messages = [content_list("What?", picture()), assistant("A circle")]
    lists = processor.apply_chat_template([messages, [user("Hi")]], tokenize=True, return_dict=True)
    assert [len(ids) for ids in lists["input_ids"]] == [len(mask) for mask in lists["attention_mask"]]
    assert lists["input_ids"][0] == processor.encode(messages).input_ids.tolist()
    masks = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="np",
        return_assistant_tokens_mask=True, return_mm_token_type_ids=True,
    )  # fmt: skip
    labels = processor.encode(messages).labels.numpy()
    assert np.array_equal(masks["assistant_masks"][0] == 1, labels != -100)
    assert masks["mm_token_type_ids"].sum() == 6
    text = "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\nA circle"
    assert processor.apply_chat_template(messages, continue_final_message=True) == text
    assert processor.apply_chat_template([messages], continue_final_message=True) == [text]
    assert ProcessorMixin.apply_chat_template(processor, messages, continue_final_message=True) == text


def test_options_without_effect_are_refused(processor):
    with pytest.raises(ValueError, match="unknown option stride; there are min_pixels"):
        processor.apply_chat_template([user("Hi")], tokenize=True, stride=True)
    small = processor.apply_chat_template(
        [content_list("?", picture(256, 256))],
        tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"images_kwargs": {"max_pixels": 4096}}, truncation=False,
    )  # fmt: skip
    assert small["image_grid_hw"].tolist() == [[4, 4]]


def test_long_conversations_are_cut_but_pictures_are_not(processor):
    conversations = [[user("Hi"), assistant("one two three four five six")], [user("Hi"), assistant("Yes")]]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True, "return_tensors": "pt"}
    whole = processor.apply_chat_template(conversations, padding_side="right", **options)
    cut = processor.apply_chat_template(conversations, padding_side="right", truncation=True, max_length=9, **options)
    for name in ("input_ids", "attention_mask", "assistant_masks"):
        assert torch.equal(cut[name], whole[name][:, :9]), name
    untouched = processor.apply_chat_template(conversations, padding_side="right", max_length=9, **options)
    assert torch.equal(untouched["input_ids"], whole["input_ids"])
    with pytest.raises(ValueError, match="has 16 tokens, and cutting it to max_length=5 would cut a picture"):
        processor.apply_chat_template([user("Hi", picture())], truncation=True, max_length=5, **options)
    with pytest.raises(ValueError, match="truncation needs max_length"):
        processor.apply_chat_template(conversations, truncation=True, **options)


def test_lengths_are_padded_to_a_multiple(processor):
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = processor.apply_chat_template([user("Hi")], pad_to_multiple_of=64, **options)
    assert batch["input_ids"].shape == (1, 64)
    assert torch.equal(
        batch["input_ids"][:, batch["attention_mask"][0].bool()],
        processor.apply_chat_template([user("Hi")], **options)["input_ids"],
    )


def test_another_template_goes_transformers_way(processor):
    template = "{% for m in messages %}{{ m.role }}: <image>{{ m.content[-1].text }}{% endfor %}"
    messages = [content_list("Hi", picture())]
    assert processor.apply_chat_template(messages, template) == "user: <image>Hi"
    inputs = processor.apply_chat_template(messages, template, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["image_grid_hw"].tolist() == [[4, 6]]


def test_call_takes_a_finished_prompt(processor, tokenizer):
    messages = [user("What is this?", picture())]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    encoded = processor.encode(messages, add_generation_prompt=True)
    for text in (prompt, prompt.replace("<image>", processor.image_token)):
        inputs = processor(text=text, images=picture(), return_tensors="pt")
        assert torch.equal(inputs["input_ids"], encoded.input_ids[None])
        assert torch.equal(inputs["pixel_values"], encoded.pixel_values)
    batch = processor(text=[prompt, "Hi"], images=[[picture()], []], return_tensors="pt", padding=True)
    assert batch["attention_mask"][:, 0].tolist() == [1, 0]
    assert processor(text="Hi", return_tensors="pt")["input_ids"].tolist() == [tokenizer("Hi").input_ids]
    assert set(processor(images=picture(), return_tensors="pt")) == {"pixel_values", "image_grid_hw"}
    small = processor(text="<image>", images=picture(256, 256), max_pixels=4096, return_tensors="pt")
    assert small["input_ids"].shape == (1, 4 + 2)
    with pytest.raises(ValueError, match=r"2 .* tokens and 1 images"):
        processor(text="<image> <image>", images=picture())
    with pytest.raises(ValueError, match="frames of a video"):
        processor(text="Hi", videos=[[picture()]])


def test_decoding(processor, tokenizer):
    ids = tokenizer("<|im_start|>Hello<|im_end|>").input_ids
    assert processor.batch_decode([ids, ids], skip_special_tokens=True) == ["Hello", "Hello"]
    assert processor.post_process_image_text_to_text(torch.tensor([ids])) == ["Hello"]


def test_token_counts_without_pictures(processor):
    sizes = [(64, 96), (1000, 2000)]
    counts = processor._get_num_multimodal_tokens(image_sizes=sizes)
    for (height, width), tokens, patches in zip(
        sizes, counts["num_image_tokens"], counts["num_image_patches"], strict=True
    ):
        encoded = processor.encode([user("?", picture(height, width))])
        assert (encoded.input_ids == processor.ids.image).sum() == tokens
        assert len(encoded.pixel_values) == patches


def same_processor(first, second):
    messages = [user("What is this?", picture())]
    one, two = (processor.encode(messages) for processor in (first, second))
    return torch.equal(one.input_ids, two.input_ids) and torch.equal(one.pixel_values, two.pixel_values)


def test_saved_and_loaded(processor, tmp_path, registered):
    processor.save_pretrained(tmp_path)
    for loaded in (NeoProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is NeoProcessor
        assert same_processor(loaded, processor)
        assert loaded.chat_template == processor.chat_template
        assert (loaded.image_processor.min_pixels, loaded.image_processor.max_pixels) == (4096, 65536)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is NeoImageProcessor
    assert AutoImageProcessor.from_pretrained(tmp_path).max_pixels == 65536
    assert AutoProcessor.from_pretrained(tmp_path, max_pixels=8192).image_processor.max_pixels == 8192
    assert "max_pixels" not in AutoProcessor.from_pretrained(tmp_path, max_pixels=8192).tokenizer.init_kwargs
    assert "NeoImageProcessor" in repr(processor)


CLIP = {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "size": 448,
    "do_center_crop": True,
}


@pytest.mark.parametrize("preprocessor", [None, CLIP, {"image_processor_type": "CLIPImageProcessor"}])
@pytest.mark.parametrize("trust", [None, True])
def test_published_checkpoints_without_processor_files(tokenizer, tmp_path, registered, preprocessor, trust, caplog):
    config = json.loads((GOLDEN / "tiny-a" / "config.json").read_text())
    config["vision_config"] |= {"min_pixels": 4096, "max_pixels": 65536}
    config["auto_map"] = {"AutoConfig": "configuration_neo_chat.NEOChatConfig"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")  # a text-only one, of the base LLM
    if preprocessor:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    loaded = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=trust)
    assert type(loaded) is NeoProcessor
    assert same_processor(loaded, NeoProcessor(NeoImageProcessor(min_pixels=4096, max_pixels=65536), tokenizer))
    assert loaded.image_processor.image_mean == (0.485, 0.456, 0.406)
    assert "no place for pictures" in caplog.text
    assert "<image>" in loaded.chat_template
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is Qwen2Tokenizer
    images = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=trust, min_pixels=9216)
    assert type(images) is NeoImageProcessor
    assert (images.min_pixels, images.max_pixels) == (9216, 65536)


def test_a_preprocessor_file_without_a_type_is_taken(tokenizer, tmp_path, registered):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"min_pixels": 4096, "max_pixels": 8192}))
    loaded = NeoProcessor.from_pretrained(tmp_path)
    assert (loaded.image_processor.min_pixels, loaded.image_processor.max_pixels) == (4096, 8192)


def test_registering_leaves_other_models_alone(tmp_path, registered):
    register()  # a second time
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        AutoImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        AutoImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP))
    assert type(AutoImageProcessor.from_pretrained(tmp_path)).__name__.startswith("CLIP")
    with pytest.raises(ValueError, match="neither an image processor of NEO nor a vision_config"):
        NeoImageProcessor.from_pretrained(tmp_path)


def test_a_processor_can_be_sent_to_other_processes(processor):
    messages = [user("What is this?", picture()), assistant("A circle.")]
    sent = pickle.loads(pickle.dumps(processor))
    assert torch.equal(sent.encode(messages).labels, processor.encode(messages).labels)
    assert torch.equal(pickle.loads(pickle.dumps(processor.encode(messages))).labels, processor.encode(messages).labels)


def test_threads_do_not_disturb_each_other(processor, tokenizer):
    messages = [user("What is <|im_end|>?"), assistant("A special token.")]
    expected = processor.encode(messages).input_ids.tolist()
    prompt = "<|im_start|>user\nHi<|im_end|>"
    whole = tokenizer(prompt).input_ids
    with ThreadPoolExecutor(8) as pool:
        ours = [pool.submit(processor.encode, messages) for _ in range(200)]
        others = [pool.submit(tokenizer, prompt) for _ in range(200)]
    assert all(future.result().input_ids.tolist() == expected for future in ours)
    assert all(future.result().input_ids == whole for future in others)


def test_a_tokenizer_without_neos_tokens_is_refused():
    with pytest.raises(ValueError, match="lacks the special tokens"):
        NeoProcessor(NeoImageProcessor(), Qwen2Tokenizer(vocab={"a": 0}, merges=[]))


def test_tokens_added_later_are_known(processor, tmp_path):
    processor.tokenizer.save_pretrained(tmp_path)
    processor.tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    processor.tokenizer.add_tokens(["zebra"])
    assert processor.tokenizer.convert_tokens_to_ids("zebra") in processor.encode([user("a zebra")]).input_ids


@pytest.mark.parametrize("last", ["user", "assistant"])
def test_the_pipelines_preprocessing(processor, last):
    """What pipeline("image-text-to-text") does before it calls the model."""

    class Stub:
        dtype = torch.float32

    Stub.processor = processor
    chat = [content_list("What?", picture())]
    if last == "assistant":
        chat.append({"role": "assistant", "content": [{"type": "text", "text": "A"}]})
    inputs = ImageTextToTextPipeline.preprocess(Stub(), Chat(chat))
    options = {"add_generation_prompt": last == "user", "continue_final_message": last == "assistant"}
    assert torch.equal(inputs["input_ids"], processor.encode(chat, **options).input_ids[None])
    plain = ImageTextToTextPipeline.preprocess(Stub(), {"images": picture(), "text": "<image> What?"})
    assert plain["image_grid_hw"].tolist() == [[4, 6]]

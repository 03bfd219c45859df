"""NEO through transformers alone: importing neo is all that its Auto classes and pipelines need.

python examples/transformers_pipeline.py
"""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import neo

FOLDER = Path(neo.__file__).parent / "checkpoints" / "neo-demo"  # or a hub id
PICTURE = str(Path(__file__).parent / "images" / "circle.png")
QUESTION = "What color is the circle?"

messages = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": QUESTION}]}]

processor = AutoProcessor.from_pretrained(FOLDER)
model = AutoModelForImageTextToText.from_pretrained(FOLDER)
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
with torch.inference_mode():
    ids = model.generate(**inputs, max_new_tokens=32)
print("model:   ", processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

answer = pipeline("image-text-to-text", model=model, processor=processor)
said = answer(text=messages, max_new_tokens=32, return_full_text=False)
print("pipeline:", said[0]["generated_text"])

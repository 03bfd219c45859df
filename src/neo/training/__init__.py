"""Training: fine-tuning in one call, recipes, stages, the loop.

from neo.training import load_recipe, train

train(model="neo-demo", dataset="training.json", epochs=3, output_dir="finetuned")
train(load_recipe("recipes/demo_llm.yaml", ["--steps", "100"]))
"""

from neo.training.config import LoraConfig, TrainConfig
from neo.training.recipe import load_recipe
from neo.training.simple import train

__all__ = ["LoraConfig", "TrainConfig", "load_recipe", "train"]

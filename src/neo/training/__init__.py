"""Training: recipes, stages, the loop.

from neo.training import load_recipe, train

train(load_recipe("recipes/demo_llm.yaml", ["--steps", "100"]))
"""

from neo.training.config import TrainConfig
from neo.training.recipe import load_recipe
from neo.training.trainer import train

__all__ = ["TrainConfig", "load_recipe", "train"]

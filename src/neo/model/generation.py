"""What transformers' `generate()` asks for beyond `forward`: positions in three rows, pictures beside rows of text."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from neo.model.positions import TEXT, grid_hw, number_images


class NeoGenerationMixin(GenerationMixin):
    """Mixed into `NeoForConditionalGeneration`."""

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        ids = model_kwargs.get("input_ids", inputs_tensor)
        grid = grid_hw(model_kwargs.get("image_grid_hw"), model_kwargs.get("image_grid_thw"))
        return self.get_positions(ids, grid, model_kwargs.get("attention_mask"))

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        past = input_ids.shape[1] - inputs["input_ids"].shape[1]
        if not kwargs.get("is_first_iteration"):
            # generate() moves all three rows on by one per new token, but words stay at h = w = 0. So does an
            # <IMG_CONTEXT> that the model wrote, which is all that can come after a cache.
            pictures = (inputs["input_ids"] == self.config.image_token_id) & (past == 0)
            inputs["position_ids"][1:] *= pictures
        elif past and inputs.get("pixel_values") is not None:
            grid = grid_hw(inputs.get("image_grid_hw"), inputs.pop("image_grid_thw", None))
            inputs |= self._pictures_after(past, input_ids, inputs["pixel_values"], grid)
        return inputs

    def _pictures_after(self, past: int, input_ids: Tensor, pixel_values: Tensor, grid: Tensor) -> dict[str, Any]:
        """The pictures that a cache of `past` tokens does not hold yet."""
        image_ids = number_images(input_ids, self.model.token_grid(grid).prod(-1), self.config.image_token_id)[:, past:]
        new = image_ids[image_ids != TEXT].unique().tolist()
        if not new:
            return {"pixel_values": None, "image_grid_hw": None}
        patches = pixel_values.split(grid.prod(-1).tolist())
        return {"pixel_values": torch.cat([patches[image] for image in new]), "image_grid_hw": grid[new]}

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        grid = grid_hw(kwargs.get("image_grid_hw"), kwargs.get("image_grid_thw"))
        pixels = kwargs.get("pixel_values")
        if expand_size > 1 and pixels is not None and len(grid) and input_ids is not None:
            # Pictures are not rows of a batch: repeat each row's pictures after each other.
            rows = [row for row in self._pictures_by_row(input_ids, grid) for _ in range(expand_size)]
            patches = pixels.split(grid.prod(-1).tolist())
            order = [image for row in rows for image in row]
            for name in ("pixel_values", "image_grid_hw", "image_grid_thw"):
                kwargs.pop(name, None)
            input_ids, kwargs = super()._expand_inputs_for_generation(
                expand_size, is_encoder_decoder, input_ids, **kwargs
            )
            return input_ids, kwargs | {
                "pixel_values": torch.cat([patches[image] for image in order]),
                "image_grid_hw": grid[order],
            }
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)

    def _pictures_by_row(self, input_ids: Tensor, grid: Tensor) -> list[list[int]]:
        tokens = self.model.token_grid(grid).prod(-1)
        image_ids = number_images(input_ids, tokens, self.config.image_token_id)
        return [sorted(set(row[row != TEXT].tolist())) for row in image_ids]

    @staticmethod
    def create_masks_for_generate(**kwargs: Any) -> None:
        """Called by generate() for static caches only, which NEO does not keep."""
        raise ValueError("cache_implementation='static' is not supported: NEO keeps a dynamic cache, leave it out")

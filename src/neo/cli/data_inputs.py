"""What the tools of `neo data` look at: the sources that a word on the command line names, and a processor."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

if TYPE_CHECKING:
    from neo.data.config import SourceConfig
    from neo.data.sources import Source
    from neo.processing.processor import NeoProcessor
    from neo.training.config import TrainConfig

DRAWN = 1000
"""Records that are looked at of a source that draws them, which has no end."""


@dataclass
class Inputs:
    """Opened sources, by name, and the recipe that they are of, if they are of one."""

    configs: "dict[str, SourceConfig]"
    sources: "list[Source]"
    recipe: "TrainConfig | None" = None

    def chosen(self, number: int | None, seed: int) -> list[Sequence[int]]:
        """The records of each source to look at: `number`, or all of a source that is not drawn."""
        from neo.data.tools.walk import some

        if number is not None and number < 1:
            raise ValueError(f"--number must be at least 1, not {number}")
        drawn = [config.path is None for config in self.configs.values()]
        most = [DRAWN if number is None and one else number for one in drawn]
        return [some(source, one, seed) for source, one in zip(self.sources, most, strict=True)]


def open_inputs(options: Namespace, index: bool = False, workers: int = 0) -> Inputs:
    """The sources that `options.source` names.

    Args:
        options: `source`, and what goes with it.
        index: an index is to be made of them, in `options.output` or where the recipe says; so where records begin in
            their files is kept beside it.
        workers: as in `open_source`.

    Raises:
        ValueError: there are none, they cannot be opened, or nothing says where their index is to be.
    """
    from neo.data.config import SourceConfig
    from neo.data.mixture import open_sources
    from neo.data.sources import open_source

    if Path(options.source).suffix.lower() in (".yaml", ".yml"):
        from neo.training import load_recipe

        if options.kind or options.image_root:
            raise ValueError("--kind and --image-root belong to a file of records; a recipe has them in data.sources")
        recipe = load_recipe(options.source)
        configs = recipe.data.sources
        if index:
            recipe.data.index = options.output or recipe.data.index
            if not recipe.data.index:
                raise ValueError(f"{options.source} has no data.index to write into; add it, or give --output")
            return Inputs(configs, open_sources(recipe.data, workers=workers), recipe)
        return Inputs(configs, [open_source(config, name) for name, config in configs.items()], recipe)
    if index and not options.output:
        raise ValueError("neo data index needs --output, the folder to write the index into")
    kept = options.output if index else None
    config = SourceConfig(kind=options.kind, path=options.source, image_root=options.image_root, index_dir=kept)
    source = open_source(config, workers=workers)
    return Inputs({source.name: config}, [source])


def load_processor(inputs: Inputs, options: Namespace, exact: bool = False) -> "tuple[NeoProcessor, str]":
    """The processor of `options.model`, or else the recipe's, or else neo-demo's; and the name of that model.

    Args:
        inputs: with the recipe, whose picture sizes hold for any model.
        options: `model` and `download`.
        exact: the model that a recipe starts from must be here; neo-demo in its place will not do.

    Raises:
        ValueError: there is no such model on this machine.
    """
    from neo.model.names import resolve
    from neo.processing.processor import NeoProcessor

    start = inputs.recipe.model if inputs.recipe else None
    own = start and (start.path or start.from_llm)
    is_here = bool(own) and Path(str(own)).expanduser().is_dir()
    if exact and start and not options.model and not is_here:
        raise ValueError(
            f"{options.source}: the model it starts from, {own or 'a fresh one'}, is not here, and lengths "
            "depend on its tokenizer; name one that has the same by --model"
        )
    name = options.model or (str(own) if is_here else "neo-demo")
    if start and name == start.from_llm:
        processor = _processor_of_llm(Path(name).expanduser())
    else:
        processor = NeoProcessor.from_pretrained(resolve(name, options.download))
    for bound in ("min_pixels", "max_pixels"):
        if start and bound in start.vision:
            setattr(processor.image_processor, bound, start.vision[bound])
    return processor, name


def _processor_of_llm(folder: Path) -> "NeoProcessor":
    """That of a NEO which is grown from a language model."""
    from transformers import AutoTokenizer

    from neo.model.config import NeoConfig
    from neo.processing.image import NeoImageProcessor
    from neo.processing.processor import NeoProcessor
    from neo.processing.tokenizer import add_special_tokens

    tokenizer = AutoTokenizer.from_pretrained(folder)
    add_special_tokens(tokenizer)
    vision = NeoConfig.get_config_dict(folder)[0].get("vision_config") or {}
    return NeoProcessor(NeoImageProcessor.from_vision_config(vision), tokenizer)

"""Sources that draw their records: pictures and texts of `neo.synthetic`, from nothing but a seed and an index."""

from collections.abc import Mapping

from neo.data.records import Record


class SyntheticSource:
    """Drawn pictures with questions and answers: `size` samples of `neo.synthetic`."""

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        families: Mapping[str, float] | None = None,
        size: int = 1_000_000,
        name: str = "synthetic",
    ) -> None:
        self.name, self.seed, self.split, self.families, self.size = name, seed, split, families, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        from neo.synthetic import generate  # drawing needs an extra that reading records does not

        sample = generate(self.seed, index, self.split, self.families)
        return Record(sample.messages(), self.name, index, sample.family)


class CorpusSource:
    """Plain texts for a base language model; each stands as one turn of the assistant, so all is learned."""

    def __init__(self, seed: int = 0, split: str = "train", size: int = 1_000_000, name: str = "corpus") -> None:
        self.name, self.seed, self.split, self.size = name, seed, split, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        from neo.synthetic import corpus  # drawing needs an extra that reading records does not

        messages = [{"role": "assistant", "content": corpus(self.seed, index, self.split)}]
        return Record(messages, self.name, index, "corpus")
